"""`kerasseg export`: runs in, a version of a served model out."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasseg.datasets.outputs.label_ids import label_ids
from kerasseg.errors import UserError
from kerasseg.prediction.model import Model, load
from kerasseg.progress import track
from kerasseg.serving.export.deployment import write_deployment
from kerasseg.serving.export.metadata import describe
from kerasseg.serving.export.versions import check_output, write_version
from kerasseg.serving.export.warm_up import (
    check_serving_package,
    warm_up_requests,
    write_warm_up,
)
from kerasseg.serving.graph.check_volume import Accepted
from kerasseg.serving.graph.served_model import ServedModel

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
