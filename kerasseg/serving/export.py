"""`kerasseg export`: one or several runs to the next version of a served model.

Besides its graphs a version holds metadata and warm-up requests. Beside the model lie the files
that a server is started with.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import tensorflow as tf

from kerasseg import __version__, anatomy
from kerasseg.config.load import dump_without_folders
from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError, storage_error
from kerasseg.files import write_bytes
from kerasseg.prediction.model import Model, load
from kerasseg.progress import track
from kerasseg.run import Run
from kerasseg.serving.graph_input import COMPRESSIONS, DTYPES, Accepted
from kerasseg.serving.protocol import WARM_UP_FILE, check_output, serving_apis, version_number
from kerasseg.serving.signatures import ExportedModel

LARGEST_VOLUME = 2**26
"""Voxels D x H x W: seven BraTS volumes."""
_LARGEST_ID = 255
_WARM_UP_SHAPE: Final = (4, 5, 6)
"""Voxels of the volume; it is one window of any network."""
_TEMPLATES: Final = Path(__file__).with_name("templates")


def export_runs(
    runs: Sequence[Path],
    output: Path,
    overrides: Sequence[str] = (),
    *,
    combine: Literal["mean", "vote"] = "mean",
    labels: str | None = None,
    largest_volume: int = LARGEST_VOLUME,
    gzip: bool = True,
) -> tuple[Path, list[Path]]:
    """Write the next version of the model `output`, and the files that a server is started with.

    Returns the version's folder, and the files written beside the model. Raises `UserError` for
    runs that cannot be loaded or do not agree, and for an output that cannot be written.

    Args:
        runs: Run folders.
        output: Folder of the model, models/NAME.
        overrides: Settings that replace those of the runs, such as "evaluation.flips=[width]".
        combine: Of several runs, the mean of probabilities or the vote of masks.
        labels: Convention of the label ids, or None for the data set's own.
        largest_volume: Most voxels D x H x W that a request may have.
        gzip: Whether compressed bytes are taken.
    """
    check_output(output)
    serving_apis()  # before anything is loaded, as the warm-up requests need them
    with contextlib.closing(track(["load", "build", "write", "tell"], 4, "export")) as steps:
        next(steps)
        model = load(*runs, combine=combine, overrides=overrides)
        ids = served_ids(model, labels)
        accepted = accepted_by(model, largest_volume)
        next(steps)
        metadata = describe(model, accepted, ids, gzip=gzip)
        exported = ExportedModel(model, accepted, ids, metadata, gzip=gzip)
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

    Raises `UserError` if the runs do not agree on the ids, or an id does not fit into a byte.
    """
    first = model.runs[0]
    if prompted := [run for run in model.runs if run.predictor.takes_prompt]:
        raise UserError(
            f"{prompted[0].folder} takes a {prompted[0].predictor.prompt}, and an exported model "
            "holds one network alone: export a run with model.sam.prompt=none."
        )
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

    Raises `UserError` if the runs do not take the same volumes.
    """
    first, *others = model.runs
    data = first.experiment.data
    same = ("modalities", "skull_stripped", "normalisation", "spacing", "size", "interpolation")
    for other in others:
        for name in same:
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


def write_version(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill an empty folder, and make it the next version of the model in `folder`.

    It is written beside the versions under a name that TensorFlow Serving passes over, and renamed
    when it is whole. If anything fails, nothing of it stays. Raises `UserError` if the disk is full
    or the folder cannot be written.
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


def describe(
    model: Model, accepted: Accepted, ids: Mapping[int, int], *, gzip: bool
) -> dict[str, Any]:
    """Return what the signature `metadata` answers; docs/savedmodel.md explains the names."""
    data, target = model.data, model.target
    labels = label_names(target, ids)
    regions = list(anatomy.TARGETS[target])
    shown = [name for name in (*labels, *regions) if name in anatomy.COLOURS]
    flat = all(run.predictor.slice_axis is not None for run in model.runs)
    return {
        "modalities": list(accepted.modalities),
        "channels": len(accepted.modalities),
        "dimensions": 2 if flat else 3,
        "axes": ["superior", "posterior", "left"],
        "spacing": list(data.spacing) if data.spacing else None,
        "size": list(data.size) if data.size else None,
        "labels": labels,
        "colours": {name: anatomy.COLOURS[name] for name in dict.fromkeys(shown)},
        "target": target,
        "regions": regions,
        "limits": {
            "voxels": accepted.voxels,
            "smallest_depth": 2 if accepted.volumes else 1,
            "dtypes": list(DTYPES),
            "compressions": list(COMPRESSIONS if gzip else COMPRESSIONS[:1]),
        },
        "combine": model.combine if len(model.runs) > 1 else None,
        "patch_size": [list(run.predictor.pipeline.patch_size) for run in model.runs],
        "config": "---\n".join(dump_without_folders(run.experiment) for run in model.runs),
        "score": {
            run.folder.name: Run(run.folder, run.experiment).summary.get("dice")
            for run in model.runs
        },
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
            "trained_with": {
                run.folder.name: Run(run.folder, run.experiment).environment.get("packages")
                for run in model.runs
            },
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": [run.folder.name for run in model.runs],
    }


def label_names(target: str, ids: Mapping[int, int]) -> dict[str, int]:
    """Return the id of each label in a segmentation by the label's name, background first."""
    names = {anatomy.BACKGROUND: anatomy.LABELS[anatomy.BACKGROUND], anatomy.TUMOUR: "tumour"}
    if target != "binary":
        names = dict(anatomy.LABELS)
    return {name: int(ids[canonical]) for canonical, name in names.items()}


def warm_up_requests(
    accepted: Accepted, patch: tuple[int, ...] | None
) -> dict[str, dict[str, Any]]:
    """Return a small request for every signature: signature to input to array or TensorProto.

    `patch` is the shape (*patch, C) that `serving_default` takes, or None if there is none.
    """
    shape = (_WARM_UP_SHAPE[0], *(accepted.size or _WARM_UP_SHAPE[1:]), len(accepted.modalities))
    volume = np.random.default_rng(0).integers(1, 1000, size=shape).astype(np.float32)
    spacing = np.asarray(accepted.spacing or (0, 0, 0), np.float32)
    requests: dict[str, dict[str, Any]] = {}
    if patch is not None:
        # A patch may have hundreds of megabytes; a single value stands for all of them.
        requests["serving_default"] = {"patches": tf.make_tensor_proto(0.0, shape=(1, *patch))}
    requests["segment"] = {"volume": volume, "spacing": spacing, "probabilities": np.asarray(True)}
    requests["segment_bytes"] = {
        "data_bytes": np.asarray(volume.astype("<i2").tobytes(), object),
        "shape": np.asarray(shape, np.int32),
        "dtype": np.asarray(b"int16", object),
        "compression": np.asarray(b"", object),
        "spacing": spacing,
        "probabilities": np.asarray(False),
    }
    requests["metadata"] = {"request": np.asarray(b"", object)}
    return requests


def write_warm_up(folder: Path, name: str, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the requests of the model `name` into the SavedModel in `folder`.

    TensorFlow Serving replays these TFRecords of `PredictionLog` before a version answers.
    """
    apis = serving_apis()
    path = folder / WARM_UP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests.items():
            request = apis.predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, value in inputs.items():
                array = isinstance(value, np.ndarray)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value) if array else value)
            log = apis.prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            file.write(log.SerializeToString())


def write_deployment(folder: Path) -> list[Path]:
    """Write the files that TensorFlow Serving is started with into the folder of the models.

    `models.config` names every model that has a version and is written anew each time. The other
    files are the user's to change, so only those that are missing are written. Returns the paths of
    the files that were written.
    """
    contents = {folder / "models.config": _models_config(folder).encode()}
    for template in sorted(_TEMPLATES.iterdir()):
        if template.is_file() and not (folder / template.name).exists():
            contents[folder / template.name] = template.read_bytes()
    for path, content in contents.items():
        write_bytes(path, content, "--output")
    return list(contents)


def _models_config(folder: Path) -> str:
    """Return TensorFlow Serving's `ModelServerConfig` of all models in `folder`.

    It is in the text format of protocol buffers. The server sees the folder as /models.
    """
    lines = [
        "# Written by kerasseg export: changes are lost with the next one.",
        "model_config_list {",
    ]
    versions = (path.parent for path in folder.glob("*/*/saved_model.pb"))
    for name in sorted(
        {path.parent.name for path in versions if version_number(path.name) is not None}
    ):
        lines += [
            "  config {",
            f'    name: "{name}"',
            f'    base_path: "/models/{name}"',
            '    model_platform: "tensorflow"',
            "  }",
        ]
    return "\n".join([*lines, "}", ""])
