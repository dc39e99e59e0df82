"""`kerasseg export`: one or several runs to the next version of a served model."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError, storage_error
from kerasseg.prediction.model import Model, load
from kerasseg.progress import track
from kerasseg.serving.export_contents import (
    check_serving_package,
    describe,
    warm_up_requests,
    write_deployment,
    write_warm_up,
)
from kerasseg.serving.graph_input import Accepted
from kerasseg.serving.protocol import version_number
from kerasseg.serving.signatures import ExportedModel

LARGEST_VOLUME = 2**26
"""Voxels D x H x W: seven BraTS volumes."""
_LARGEST_ID = 255
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is to be served.

    Attributes:
        combine: Of several runs, the mean of probabilities or the vote of masks.
        labels: Convention of the label ids, or None for the data set's own.
        largest_volume: Most voxels D x H x W that a request may have.
        gzip: Whether compressed bytes are taken.
    """

    combine: Literal["mean", "vote"] = "mean"
    labels: str | None = None
    largest_volume: int = LARGEST_VOLUME
    gzip: bool = True


def export_runs(
    runs: Sequence[Path],
    output: Path,
    options: ExportOptions = ExportOptions(),
    overrides: Sequence[str] = (),
) -> tuple[Path, list[Path]]:
    """Write the next version of the model `output`, and the files that a server is started with.

    Args:
        runs: Run folders.
        output: Folder of the model, models/NAME.
        options: How it is to be served.
        overrides: Settings that replace those of the runs, such as "evaluation.flips=[width]".

    Returns:
        The version's folder, and the files written beside the model.

    Raises:
        UserError: For runs that cannot be loaded or do not agree, and for an output that cannot be
            written.
    """
    check_output(output)
    check_serving_package()
    with contextlib.closing(track(["load", "build", "write", "tell"], 4, "export")) as steps:
        next(steps)
        model = load(*runs, combine=options.combine, overrides=overrides)
        ids = served_ids(model, options.labels)
        accepted = accepted_by(model, options.largest_volume)
        next(steps)
        metadata = describe(model, accepted, ids, gzip=options.gzip)
        exported = ExportedModel(model, accepted, ids, metadata, gzip=options.gzip)
        next(steps)

        def write(folder: Path) -> None:
            exported.save(folder)
            write_warm_up(folder, output.name, warm_up_requests(accepted, exported.patch))

        version = write_version(output, write)
        next(steps)
        written = write_deployment(output.absolute().parent)
        next(steps, None)
    return version, written


def served_ids(model: Model, convention: str | None) -> Mapping[int, int]:
    """Return the id in a served label for each canonical id.

    Raises:
        UserError: If the runs do not agree on the ids, or an id does not fit into a byte.
    """
    first = model.runs[0]
    every = [label_ids(convention, run.experiment.data, model.target, None) for run in model.runs]
    ids = dict(every[0])
    for other, theirs in zip(model.runs, every, strict=True):
        if dict(theirs) != ids:
            raise UserError(
                f"{first.folder} writes the ids {_format_ids(ids)}, but {other.folder} "
                f"{_format_ids(theirs)} (background, NCR, ED, ET): say which with --labels."
            )
    if max(ids.values()) > _LARGEST_ID:
        raise UserError(
            f"{first.folder} writes the ids {_format_ids(ids)}, but a served label has one byte a "
            f"voxel, at most {_LARGEST_ID}: choose other ids with --labels."
        )
    return ids


def accepted_by(model: Model, largest: int) -> Accepted:
    """Return which volumes the model takes, of at most `largest` voxels.

    Raises:
        UserError: If the runs do not take the same volumes.
    """
    first, *others = model.runs
    data = first.experiment.data
    for other in others:
        for name in ("modalities", "skull_stripped", "spacing", "size", "interpolation"):
            mine, theirs = getattr(data, name), getattr(other.experiment.data, name)
            if mine != theirs:
                raise UserError(
                    f"{first.folder} has data.{name}={_format_value(mine)}, but {other.folder} "
                    f"{_format_value(theirs)}: runs that are served as one take the same volume; "
                    "export them one by one, or use kerasseg predict."
                )
    seen = [run.voxel_sizes for run in model.runs if run.voxel_sizes]
    # What all of the runs have seen.
    least = [max(axis) for axis in zip(*(smallest for smallest, _ in seen), strict=True)]
    most = [min(axis) for axis in zip(*(longest for _, longest in seen), strict=True)]
    return Accepted(
        modalities=data.modalities,
        voxels=largest,
        spacing=data.spacing,
        size=data.size,
        cubic=data.interpolation == "cubic",
        volumes=any(run.predictor.slice_axis is None for run in model.runs),
        trained=(least, most) if seen else None,
    )


def _format_ids(ids: Mapping[int, int]) -> str:
    return ", ".join(str(ids[canonical]) for canonical in sorted(ids))


def _format_value(value: object) -> str:
    if value is None:
        return "null"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
    """Let `write` fill an empty folder, and make it the next version of the model in `folder`.

    It is written beside the versions under a name that TensorFlow Serving passes over, and renamed
    when it is whole. If anything fails, nothing of it stays.

    Raises:
        UserError: If the disk is full or the folder cannot be written.
    """
    before = folder.exists()
    aside = folder / f".incomplete-{os.getpid()}"
    try:
        aside.mkdir(parents=True)
        write(aside)
        while True:
            numbers = [version_number(path.name) for path in folder.iterdir()]
            version = folder / str(max((n for n in numbers if n is not None), default=0) + 1)
            try:
                return aside.rename(version)
            except OSError:
                if not version.exists():  # otherwise another export took the number first
                    raise
    except OSError as error:
        raise storage_error(error, f"Writing {folder}", "--output") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not before and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
