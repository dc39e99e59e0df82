"""`kerasseg export`: runs in, a version of a served model out.

`models/NAME/<version>/`: whole or not there.

The files beside the models that a server is started with.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError, storage_error
from kerasseg.files import atomic_write
from kerasseg.prediction.model import Model, load
from kerasseg.progress import track
from kerasseg.serving.export_contents import (
    check_serving_package,
    describe,
    warm_up_requests,
    write_warm_up,
)
from kerasseg.serving.graph_input import Accepted
from kerasseg.serving.signatures import ServedModel

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def versions_of(folder: Path) -> list[int]:
    """The versions of a model that TensorFlow Serving would find, in order."""
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal() and (path / "saved_model.pb").is_file()
    )


def check_output(folder: Path) -> None:
    """Raise `UserError` if no model can be written into `folder`."""
    if not _NAME.fullmatch(folder.name):
        raise UserError(
            f"--output {folder}: its last part is the name that clients use, so it must start with "
            "a letter and have letters, digits, _, - and . only, such as models/brain."
        )
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {folder}: {path} is a file; name a folder, models/NAME.")
    if (folder / "saved_model.pb").exists() or (folder / "config.yaml").exists():
        raise UserError(
            f"--output {folder} is a SavedModel or a run itself: name the folder of a model, in "
            "which every export is a version of its own."
        )


def write_version(folder: Path, write: Callable[[Path], None]) -> Path:
    """What `write` makes of an empty folder, as the next version of the model in `folder`.

    It is written beside the versions under a name that TensorFlow Serving passes over, and renamed
    when it is whole. On any failure nothing of it stays. Raises `UserError` for a full disk.
    """
    before = folder.exists()
    aside = folder / f".incomplete-{os.getpid()}"
    try:
        aside.mkdir(parents=True)
        write(aside)
        return _rename(aside, folder)
    except OSError as error:
        raise storage_error(error, f"Writing {folder}", "--output") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not before and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _rename(aside: Path, folder: Path) -> Path:
    while True:
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        version = folder / str(max(numbers, default=0) + 1)
        try:
            aside.rename(version)
        except OSError:
            if not version.exists():  # else another export was faster
                raise
        else:
            return version


MODELS_CONFIG: Final = "models.config"
_TEMPLATES: Final = Path(__file__).with_name("templates")


def write_deployment(folder: Path) -> list[Path]:
    """Write into the folder of the models what TensorFlow Serving is started with.

    `models.config` names every model that has a version and is written anew each time; of the
    others, which are the user's to change, only those that are missing. Returns what was written.
    """
    written = []
    path = folder / MODELS_CONFIG
    with atomic_write(path, "--output") as temporary:
        temporary.write_text(models_config(folder), encoding="utf-8")
    written.append(path)
    for template in sorted(_TEMPLATES.iterdir()):
        path = folder / template.name
        if template.is_file() and not path.exists():
            with atomic_write(path, "--output") as temporary:
                temporary.write_bytes(template.read_bytes())
            written.append(path)
    return written


def models_config(folder: Path) -> str:
    """TensorFlow Serving's `ModelServerConfig` of all models in `folder`, which it sees as
    /models, in the text format of protocol buffers."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and versions_of(p))
    lines = [
        "# Written by kerasseg export: changes are lost with the next one.",
        "model_config_list {",
    ]
    for name in names:
        lines += [
            "  config {",
            f'    name: "{name}"',
            f'    base_path: "/models/{name}"',
            '    model_platform: "tensorflow"',
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


LARGEST_VOLUME = 2**26
"""Voxels D x H x W: seven BraTS volumes."""
_LARGEST_ID = 255


@dataclass(frozen=True)
class Wanted:
    """How a model is to be served.

    combine:        of several runs: mean of probabilities, or vote of masks
    labels:         convention of the ids, or None for the data set's own
    largest_volume: the most voxels D x H x W that a request may have
    gzip:           whether compressed bytes are taken
    """

    combine: Literal["mean", "vote"] = "mean"
    labels: str | None = None
    largest_volume: int = LARGEST_VOLUME
    gzip: bool = True


def export_runs(
    runs: Sequence[Path],
    output: Path,
    wanted: Wanted = Wanted(),
    overrides: Sequence[str] = (),
) -> tuple[Path, list[Path]]:
    """Write the next version of the model `output`, and what a server is started with beside it.

    overrides: settings that are to be others than in the runs

    Returns the version's folder and the files beside the model. Raises `UserError` for runs that
    cannot be loaded or do not agree, and for an output that cannot be written.
    """
    check_output(output)
    check_serving_package()
    with contextlib.closing(track(["load", "build", "write", "tell"], 4, "export")) as steps:
        next(steps)
        model = load(*runs, combine=wanted.combine, overrides=overrides)
        ids = served_ids(model, wanted.labels)
        accepted = accepted_by(model, wanted.largest_volume)
        next(steps)
        metadata = describe(model, accepted, ids, gzip=wanted.gzip)
        served = ServedModel(model, accepted, ids, metadata, gzip=wanted.gzip)
        next(steps)

        def write(folder: Path) -> None:
            served.save(folder)
            write_warm_up(folder, output.name, warm_up_requests(accepted, served.patch))

        version = write_version(output, write)
        next(steps)
        written = write_deployment(output.absolute().parent)
        next(steps, None)
    return version, written


def served_ids(model: Model, convention: str | None) -> Mapping[int, int]:
    """Canonical id -> the id in a label. Raises `UserError` where the runs do not agree, and for
    an id that has no room in a byte."""
    first = model.runs[0]
    every = [label_ids(convention, run.experiment.data, model.target, None) for run in model.runs]
    ids = dict(every[0])
    for other, theirs in zip(model.runs, every, strict=True):
        if dict(theirs) != ids:
            raise UserError(
                f"{first.folder} writes the ids {_words(ids)}, but {other.folder} "
                f"{_words(theirs)} (background, NCR, ED, ET): say which with --labels."
            )
    if max(ids.values()) > _LARGEST_ID:
        raise UserError(
            f"{first.folder} writes the ids {_words(ids)}, but a served label has one byte a "
            f"voxel, at most {_LARGEST_ID}: choose other ids with --labels."
        )
    return ids


def accepted_by(model: Model, largest: int) -> Accepted:
    """What the runs take. Raises `UserError` where they do not take the same."""
    first, *others = model.runs
    for other in others:
        for name in ("modalities", "spacing", "size", "interpolation"):
            mine = getattr(first.experiment.data, name)
            theirs = getattr(other.experiment.data, name)
            if mine != theirs:
                raise UserError(
                    f"{first.folder} has data.{name}={_words(mine)}, but {other.folder} "
                    f"{_words(theirs)}: runs that are served as one take the same volume; export "
                    "them one by one, or use kerasseg predict."
                )
    data = first.experiment.data
    return Accepted(
        modalities=data.modalities,
        voxels=largest,
        spacing=data.spacing,
        size=data.size,
        cubic=data.interpolation == "cubic",
        volumes=any(run.predictor.slice_axis is None for run in model.runs),
    )


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        value = [value[canonical] for canonical in sorted(value)]
    return "null" if value is None else ", ".join(map(str, value))  # type: ignore[call-overload]
