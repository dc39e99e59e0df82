"""`runs/<name>`: where one run keeps everything that is needed to believe and repeat it."""

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from kerasseg.config import Experiment
from kerasseg.config_file import differences, dump_experiment, load_experiment
from kerasseg.errors import UserError, storage_error
from kerasseg.write_aside import write_aside

_PACKAGES = ("kerasseg", "tensorflow", "keras", "numpy", "nibabel", "h5py", "scipy")
_MUST_MATCH = ("data", "records", "split", "pipeline", "model", "loss", "optimizer", "training")


def new_run_folder(experiment: Experiment) -> Path:
    """Make `<run.root>/<run.name>`, or `<run.name>-2`, -3, … where there is one already."""
    root, name = experiment.run.root, experiment.run.name
    taken = _numbers(root, name)
    number = max(taken, default=0) + 1
    folder = root / (name if number == 1 else f"{name}-{number}")
    try:
        for part in ("checkpoints", "figures", "tensorboard"):
            (folder / part).mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_experiment(experiment), encoding="utf-8")
    except OSError as error:
        raise storage_error(error, f"Making the run folder {folder}", "run.root") from error
    return folder


def latest_run_folder(experiment: Experiment) -> Path:
    """The newest run of this name, to resume. Raises `UserError` if there is none, or if its
    config differs in something that changes the result."""
    root, name = experiment.run.root, experiment.run.name
    taken = _numbers(root, name)
    if not taken:
        raise UserError(f"--resume: there is no run {name} in {root}: start it without --resume.")
    number = max(taken)
    folder = root / (name if number == 1 else f"{name}-{number}")
    before = load_experiment(folder / "config.yaml")
    changed = differences(before, experiment, _MUST_MATCH)
    if before.run.seed != experiment.run.seed:
        changed.append(f"run.seed: {before.run.seed} -> {experiment.run.seed}")
    if changed:
        raise UserError(
            f"--resume: {folder} was made with another config: {'; '.join(changed)}. Use "
            f"--config {folder}/config.yaml, or start anew without --resume."
        )
    return folder


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON in one step."""
    with write_aside(path, "run.root") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and command line of this process."""
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "device": device,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _numbers(root: Path, name: str) -> list[int]:
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    if not root.is_dir():
        return []
    matches = (pattern.fullmatch(path.name) for path in root.iterdir() if path.is_dir())
    return [int(match[1] or 1) for match in matches if match]
