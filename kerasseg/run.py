"""`runs/<name>`: where one run keeps everything that is needed to believe and repeat it."""

import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from kerasseg import __version__
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import differences, dump_experiment, load_experiment
from kerasseg.errors import UserError, storage_error
from kerasseg.files import write_aside
from kerasseg.records.splits import Split

_PACKAGES = ("tensorflow", "keras", "numpy", "nibabel", "h5py", "scipy")
_MAY_CHANGE = (
    "records.workers",
    "records.root",
    "records.on_damaged_record",
    "data.root",
    "data.on_bad_case",
    "pipeline.prefetch",
    "training.devices",
    "training.strategy",
    "training.jit_compile",
    "training.deterministic",
    "training.validate_volumes_every",
    "training.callbacks",
)
"""Settings that a resumed run may change: they move files or work about, not results. A damaged
record stops a run, so leaving it out must be a way to go on."""
_MUST_MATCH = (
    "data",
    "records",
    "split",
    "pipeline",
    "augment",
    "model",
    "loss",
    "optimizer",
    "training",
)


def new_run_folder(experiment: Experiment) -> Path:
    """Make `<run.root>/<run.name>`, or `<run.name>-2`, -3, … where there is one already.

    Of folds `<run.name>_fold<K>`.
    """
    root, name = experiment.run.root, experiment.run_name
    number = 1
    while (folder := _folder(root, name, number)).exists():
        number += 1
    try:
        for part in ("checkpoints", "figures", "tensorboard"):
            (folder / part).mkdir(parents=True)
    except OSError as error:
        raise storage_error(error, f"Making the run folder {folder}", "run.root") from error
    return folder


def latest_run_folder(experiment: Experiment) -> Path:
    """The newest run of this name, to resume. Raises `UserError` if there is none, or if its
    config differs in something that changes the training."""
    root, name = experiment.run.root, experiment.run_name
    folder = _newest(root, name)
    if folder is None:
        raise UserError(f"--resume: there is no run {name} in {root}: start it without --resume.")
    before = load_experiment(folder / "config.yaml")
    changed = [
        d for d in differences(before, experiment, _MUST_MATCH) if not d.startswith(_MAY_CHANGE)
    ]
    if before.run.seed != experiment.run.seed:
        changed.append(f"run.seed: {before.run.seed} -> {experiment.run.seed}")
    if changed:
        raise UserError(
            f"--resume: {folder} was made with another config: {'; '.join(changed)}. Use "
            f"--config {folder}/config.yaml, or start anew without --resume."
        )
    return folder


def check_same_data(folder: Path, split: Split, data_fingerprint: str) -> None:
    """Raise `UserError` if a run to be resumed was trained on other data or another split.

    Going on would train on patients that are then reported as held out.
    """
    before = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    if before["data_fingerprint"] != data_fingerprint:
        raise UserError(
            f"--resume: {folder} was trained on a store with data fingerprint "
            f"{before['data_fingerprint']}, now it is {data_fingerprint}: the scans were converted "
            "anew from other files; start again without --resume."
        )
    if json.loads((folder / "split.json").read_text(encoding="utf-8")) != split.as_json():
        raise UserError(
            f"--resume: the split beside the store is not the one {folder} was trained with: "
            "restore it from the run's split.json, or start again without --resume."
        )


def write_inputs(
    folder: Path, experiment: Experiment, split: Split, data_fingerprint: str, device: str
) -> None:
    """Write what goes in: `config.yaml`, `split.json` and `environment.json`."""
    split.write(folder / "split.json", "run.root")
    write_json(
        folder / "environment.json", environment(device) | {"data_fingerprint": data_fingerprint}
    )
    # The config last: a folder that has one can be resumed.
    with write_aside(folder / "config.yaml", "run.root") as temporary:
        temporary.write_text(dump_experiment(experiment), encoding="utf-8")


@contextmanager
def removed_if_nothing_was_learnt(folder: Path) -> Iterator[None]:
    """Remove a run folder whose fit ended before its first checkpoint: nothing can resume it."""
    try:
        yield
    except BaseException:
        if not any((folder / "checkpoints").iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON in one step."""
    with write_aside(path, "run.root") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and command line of this process."""
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "packages": {
            "kerasseg": __version__,
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "system": platform.platform(),
        "device": device,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _folder(root: Path, name: str, number: int) -> Path:
    return root / (name if number == 1 else f"{name}-{number}")


def _newest(root: Path, name: str) -> Path | None:
    """The folder of the highest number whose config says it is a run of that name."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    matches = [pattern.fullmatch(path.name) for path in root.iterdir()] if root.is_dir() else []
    for number in sorted((int(match[1] or 1) for match in matches if match), reverse=True):
        config = _folder(root, name, number) / "config.yaml"
        if config.exists() and load_experiment(config).run_name == name:
            return config.parent
    return None
