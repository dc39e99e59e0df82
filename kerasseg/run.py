"""The one writer and the one reader of a run folder, `<run.root>/<run.name>`.

A run folder holds everything that is needed to believe a training, to repeat it and to use its
network: `config.yaml`, `split.json`, `environment.json`, `history.csv`, `checkpoints/best.keras`
and more (README.md lists them). Resuming, evaluating, comparing, predicting, exporting and starting
from another run's weights all read it here. Keras is imported only when a network is loaded.
"""

import csv
import json
import platform
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import yaml
from pydantic import ValidationError

from kerasseg.config.base import import_object
from kerasseg.config.evaluation import PostprocessingSettings, check_postprocessing
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import (
    differences,
    dump_experiment,
    load_experiment,
    look_up,
    parse_yaml,
    read_yaml,
)
from kerasseg.config.model import NETWORKS, SamSettings
from kerasseg.datasets.dataset_json import named_channels
from kerasseg.errors import UserError, describe_storage_error, storage_error
from kerasseg.files import write_json, write_text
from kerasseg.records.manifest import Manifest, intensities, read_manifest, voxel_sizes
from kerasseg.records.splits import Split
from kerasseg.records.store import RecordStore, open_store

if TYPE_CHECKING:
    import keras

SIDES: Final = ("train", "validation", "test")
CHECKPOINT: Final = Path("checkpoints", "best.keras")
POSTPROCESSING: Final = "postprocessing.yaml"

_PACKAGES = ("tensorflow", "keras", "numpy", "nibabel", "h5py", "scipy")
_MAY_CHANGE = (
    "records.workers",
    "records.root",
    "records.on_damaged_record",
    "data.root",
    "data.channels",
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
_OF_EVALUATION = ("evaluation", "postprocessing", "metrics")
_OF_PROMPT = {"prompt": "", "boxes_from": "box", "box_margin": "box", "points": "points"}
"""The settings of a SAM's prompt, and the prompt that each of them is for."""


@dataclass(frozen=True)
class Run:
    """A run folder that was read back; its files are read when they are asked for.

    experiment: the run's config, with the post-processing that was tuned for it, if it was
    overrides: `section.key=value` texts that were applied to it
    """

    folder: Path
    experiment: Experiment
    overrides: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """Return the file of the best network, which may not exist."""
        return self.folder / CHECKPOINT

    @cached_property
    def split(self) -> dict[str, Any]:
        """Return the case ids of each of `SIDES`, and `overfit_check`."""
        return self._read_json("split.json", SIDES)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Return versions, machine, command line and the fingerprint of the data.

        It is empty for a run of an early version, or one whose file was not kept.
        """
        path = self.folder / "environment.json"
        return self._read_json(path.name) if path.is_file() else {}

    @property
    def data_fingerprint(self) -> str:
        """Return the fingerprint of the store that the run was made on, which must be known."""
        return str(self._read_json("environment.json", ["data_fingerprint"])["data_fingerprint"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Return `summary.json`; it is empty for a run that was stopped before its end."""
        path = self.folder / "summary.json"
        return self._read_json(path.name) if path.is_file() else {}

    @cached_property
    def history(self) -> list[dict[str, str]]:
        """Return the rows of `history.csv`; there are none where the file is missing."""
        path = self.folder / "history.csv"
        return read_history(path) if path.is_file() else []

    def seen(self, what: str) -> tuple[Any, Any] | None:
        """Return what the training saw of `voxel_sizes` or `intensities`; None in older runs.

        These are the smallest and largest voxel (D, H, W) in mm, or mean and standard deviation
        (C, 2) of `checks.intensity_profile`.
        """
        found = self.environment.get(what)
        return (found[0], found[1]) if found else None

    def case_ids(self, side: str) -> list[str]:
        """Return the case ids of one of `SIDES`. Raises `UserError` if it has none."""
        ids = list(self.split[side])
        if not ids:
            others = ", ".join(f"{name} ({len(self.split[name])})" for name in SIDES)
            raise UserError(
                f"{self.folder}: the split holds no {side} case; there are {others}: name one "
                "with --split."
            )
        return ids

    def open_store(self) -> RecordStore:
        """Open the run's record store, which must be there and hold the data of the run.

        Nothing is converted here, as that may take hours. Raises `UserError` otherwise.
        """
        root = self.experiment.store_root
        if read_manifest(root) is None:
            raise UserError(
                f"{self.folder}: its record store {root} is not there, or is not whole (looked "
                f"from {Path.cwd()}): start the command where the run was trained. Converting the "
                "scans again may take hours, so it is a command of its own: kerasseg convert "
                f"--config {self.folder / 'config.yaml'}"
            )
        store = open_store(self.experiment)
        before, now = self.data_fingerprint, store.manifest.data_fingerprint
        if before != now:
            raise UserError(
                f"{self.folder}: was made on a store with data fingerprint {before}, but that of "
                f"{store.root} is {now}: the scans were converted anew from other files, so that "
                "its split may not hold any more."
            )
        return store

    def load_network(self) -> "keras.Model":
        """Load the best network.

        Raises `UserError` if its file is damaged or of other versions, or it has layers of the
        user's own that cannot be imported.
        """
        missing: UserError | None = None
        # Layers that it registers with Keras are known only when it has been imported.
        name = self.experiment.model.network
        try:
            import_object("model.network", NETWORKS.get(name, name), "a function")
        except UserError as error:
            missing = error
        try:
            return load_network(self.checkpoint)
        except UserError as error:
            raise (UserError(f"{error} {missing}") if missing else error) from None

    def _read_json(self, name: str, keys: Sequence[str] = ()) -> dict[str, Any]:
        path = self.folder / name
        try:
            values = dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{path}: is missing, and the run cannot be used without it: restore the file."
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: is no JSON ({error}): restore the file.") from None
        missing = [key for key in keys if key not in values]
        if missing:
            raise UserError(f"{path}: has no {', '.join(missing)}: restore the file.")
        return values


def read_run(folder: Path, overrides: Sequence[str] = (), *, trained: bool = True) -> Run:
    """Read a run folder.

    Raises `UserError` if `folder` does not exist, is not a run folder, or has no checkpoint, or one
    of its settings cannot be understood.

    Args:
        folder: the run folder.
        overrides: settings other than the run's and than the tuned post-processing, such as
            "evaluation.flips=[width]"; model.sam.prompt also replaces what belongs to the prompt.
        trained: whether there must be a checkpoint; else tuned post-processing is not read.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        wrong = "is not a run folder: it has no config.yaml" if folder.is_dir() else "is not there"
        raise UserError(
            f"{folder} {wrong}. Name a folder that kerasseg train has written; beside it are "
            f"{_names(runs_in(folder.parent))}."
        )
    if trained and not (folder / CHECKPOINT).is_file():
        raise UserError(
            f"{folder}: the run has no checkpoint ({CHECKPOINT}), as its training has not come to "
            "the end of an epoch: go on with kerasseg train --resume, or name another run. Beside "
            f"it have one: {_names(runs_in(folder.parent))}."
        )
    prompts = [t.partition("=")[2].strip() for t in overrides if t.startswith("model.sam.prompt=")]
    replaced = [
        f"model.sam.{name}={json.dumps(SamSettings.model_fields[name].default)}"
        for name, prompt in _OF_PROMPT.items()
        if prompts and prompt != prompts[-1]
    ]
    try:
        experiment = load_experiment(config, [*replaced, *overrides])
    except UserError as error:
        raise UserError(f"{error}{_other_versions(folder)}") from error
    if trained and (tuned := _tuned_postprocessing(folder, experiment.model.target)):
        experiment = load_experiment(config, [*replaced, tuned, *overrides])
    return Run(folder, experiment, tuple(overrides))


def read_evaluated(folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Read a run as `read_run` does, and refuse overrides that belong to its training."""
    for text in overrides:
        section = text.partition(".")[0]
        of_prompt = text.partition("=")[0].removeprefix("model.sam.") in _OF_PROMPT
        allowed = section in _OF_EVALUATION or of_prompt
        if section in Experiment.model_fields and not allowed:
            raise UserError(
                f"{text}: is a setting of the training of {folder}, which is over; an evaluation "
                f"takes settings of {', '.join(_OF_EVALUATION)}, and the prompt of a SAM "
                "(model.sam.prompt, boxes_from, box_margin, points)."
            )
    return read_run(folder, overrides)


def runs_in(root: Path) -> list[str]:
    """Return the names of the run folders in `root` that have a checkpoint."""
    return sorted(path.parents[1].name for path in root.glob(f"*/{CHECKPOINT}"))


def load_network(path: Path) -> "keras.Model":
    """Load a `.keras` file, that of a run or another one.

    Raises `UserError` if the file is damaged, or this installation cannot read it; then the
    versions that the run was made with are named, if they are other ones.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except MemoryError:
        raise
    except PermissionError as error:
        raise UserError(f"{path}: {describe_storage_error(error)}.") from error
    except Exception as error:  # a file of any contents may be named, and HDF5 fails in many ways
        reason = " ".join(str(error).split())[:200]
        if _is_damaged(path):
            raise UserError(
                f"{path} cannot be read as a Keras network, as the file was cut or overwritten "
                f"({reason}): restore it, or name another run or file."
            ) from error
        advice = _other_versions(path.parent.parent) or " Name another run or file."
        raise UserError(f"{path} cannot be read as a Keras network ({reason}).{advice}") from error


def needed_modalities(experiments: Iterable[Experiment]) -> tuple[str, ...]:
    """Return what a scan must have: what any of the runs needs, or what gives it boxes."""
    needed: list[str] = []
    for experiment in experiments:
        boxes = experiment.model.sam.boxes_from
        needed += experiment.data.modalities
        needed += read_run(boxes).experiment.data.modalities if boxes else ()
    return tuple(dict.fromkeys(needed))


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a `history.csv`, oldest first."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def new_run_folder(experiment: Experiment) -> Path:
    """Make `<run.root>/<run.name>`, or `<run.name>-2`, -3, … where there is one already.

    The name of a fold is `<run.name>_fold<K>`.
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


def write_inputs(
    folder: Path, experiment: Experiment, split: Split, manifest: Manifest, device: str
) -> None:
    """Write what goes into a training: `split.json`, `environment.json` and `config.yaml`.

    Of the data there is what a scan to be predicted is compared with: `data.channels` in the
    config, and the smallest and largest voxel in `environment.json`.
    """
    split.write(folder / "split.json", "run.root")
    of_data = {
        "data_fingerprint": manifest.data_fingerprint,
        "voxel_sizes": voxel_sizes(experiment.data, manifest),
        "intensities": intensities(manifest),
    }
    write_json(folder / "environment.json", environment(device) | of_data, "run.root")
    data = experiment.data.model_copy(update={"channels": named_channels(experiment.data)})
    experiment = experiment.model_copy(update={"data": data})
    # The config last: a folder that has one can be resumed.
    write_text(folder / "config.yaml", dump_experiment(experiment), "run.root")


def write_postprocessing(folder: Path, settings: PostprocessingSettings) -> Path:
    """Write post-processing that was tuned for the run, replacing an earlier one; returns the
    file."""
    path = folder / POSTPROCESSING
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json")), "run.root")
    return path


@contextmanager
def remove_if_untrained(folder: Path) -> Iterator[None]:
    """Remove the run folder if the block fails before the first checkpoint: nothing can resume
    it."""
    try:
        yield
    except BaseException:
        if not any((folder / "checkpoints").iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def latest_run_folder(experiment: Experiment) -> Path:
    """Return the newest run of the experiment's name, to resume it.

    Raises `UserError` if there is none, or its config differs in something that changes the
    training.
    """
    root, name = experiment.run.root, experiment.run_name
    folder = _newest(root, name, name)
    if folder is None and experiment.split.method == "file" and experiment.split.fold == 0:
        # Earlier versions called fold 0 of a split file by the name without a fold.
        folder = _newest(root, experiment.run.name, name)
    if folder is None:
        raise UserError(f"--resume: there is no run {name} in {root}: start it without --resume.")
    if look_up(read_yaml(folder / "config.yaml"), "optimizer.name") == "muon":
        raise UserError(
            f"--resume: {folder} was trained with kerasseg's own muon, which is gone, and Keras's "
            "keeps other moments: start anew without --resume."
        )
    before = read_run(folder, trained=False).experiment
    sections = set(Experiment.model_fields) - {"run", *_OF_EVALUATION}
    found = differences(before, experiment, sections)
    changed = [difference for difference in found if not difference.startswith(_MAY_CHANGE)]
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
    run = read_run(folder, trained=False)
    before = run.data_fingerprint
    if before != data_fingerprint:
        raise UserError(
            f"--resume: {folder} was trained on a store with data fingerprint {before}, now it is "
            f"{data_fingerprint}: the scans were converted anew from other files; start again "
            "without --resume."
        )
    if run.split != split.as_json():
        raise UserError(
            f"--resume: the split beside the store is not the one {folder} was trained with: "
            "restore it from the run's split.json, or start again without --resume."
        )


def environment(device: str) -> dict[str, Any]:
    """Return versions, machine and command line of this process."""
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "packages": _versions(),
        "system": platform.platform(),
        "device": device,
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def own_version() -> str:
    """Return the version of kerasseg."""
    # Not by an import: the package itself imports what reads runs, for its public names.
    return str(sys.modules["kerasseg"].__version__)


def _versions() -> dict[str, str]:
    return {"kerasseg": own_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def _other_versions(folder: Path) -> str:
    """Return a sentence about the versions that wrote the run, empty if they are those of here."""
    try:
        written = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["packages"]
        here = _versions()
        other = [n for n in ("kerasseg", "keras", "tensorflow") if written[n] != here[n]]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not other:
        return ""
    before, now = (", ".join(f"{n} {v[n]}" for n in other) for v in (written, here))
    return f" The run was made with {before}, and here is {now}: use it with those versions."


def _is_damaged(path: Path) -> bool:
    """Return whether a file is not a whole zip archive, which every `.keras` file is."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return True


def _tuned_postprocessing(folder: Path, target: str) -> str:
    """Return what was tuned as an override of the run's settings; nothing where it was not."""
    path = folder / POSTPROCESSING
    if not path.is_file():
        return ""
    try:
        settings = PostprocessingSettings.model_validate(parse_yaml(path.read_text("utf-8")))
        check_postprocessing(settings, target)
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(
            f"{path}: is no post-processing of this run ({str(error).splitlines()[0]}): tune it "
            "anew with kerasseg evaluate RUN --tune-postprocessing, or delete the file."
        ) from None
    return f"postprocessing={settings.model_dump_json()}"


def _names(runs: Sequence[str]) -> str:
    return ", ".join(runs) or "none"


def _folder(root: Path, name: str, number: int) -> Path:
    return root / (name if number == 1 else f"{name}-{number}")


def _newest(root: Path, folder_name: str, run_name: str) -> Path | None:
    """Return the folder of the highest number whose config says it is a run of that name."""
    pattern = re.compile(re.escape(folder_name) + r"(?:-(\d+))?")
    matches = [pattern.fullmatch(path.name) for path in root.iterdir()] if root.is_dir() else []
    for number in sorted((int(match[1] or 1) for match in matches if match), reverse=True):
        config = _folder(root, folder_name, number) / "config.yaml"
        if config.exists() and load_experiment(config).run_name == run_name:
            return config.parent
    return None
