"""The contents of an export besides its graphs: metadata, warm-up requests, files for a server."""

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import yaml

from kerasseg import __version__, anatomy
from kerasseg.config.load import dump_experiment, parse_yaml
from kerasseg.errors import UserError
from kerasseg.files import atomic_write
from kerasseg.prediction.model import LoadedRun, Model
from kerasseg.run import Run
from kerasseg.serving.graph_input import COMPRESSIONS, DTYPES, Accepted
from kerasseg.serving.protocol import version_number

WARM_UP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
_WARM_UP_SHAPE: Final = (4, 5, 6)
"""Voxels of the volume; it is one window of any network."""
_TEMPLATES: Final = Path(__file__).with_name("templates")


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
        "config": "---\n".join(_dump_without_folders(run) for run in model.runs),
        "score": {
            run.folder.name: Run(run.folder, run.experiment).summary.get("dice")
            for run in model.runs
        },
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
            "trained_with": {run.folder.name: _training_packages(run) for run in model.runs},
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": [run.folder.name for run in model.runs],
    }


def _dump_without_folders(run: LoadedRun) -> str:
    """Return a run's settings as YAML, of the machine's absolute paths only the last name."""

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shorten(each) for key, each in value.items()}
        if isinstance(value, list):
            return [shorten(each) for each in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return yaml.safe_dump(shorten(parse_yaml(dump_experiment(run.experiment))), sort_keys=False)


def label_names(target: str, ids: Mapping[int, int]) -> dict[str, int]:
    """Return the id of each label in a segmentation by the label's name, background first."""
    names = {anatomy.BACKGROUND: anatomy.LABELS[anatomy.BACKGROUND], anatomy.TUMOUR: "tumour"}
    if target != "binary":
        names = dict(anatomy.LABELS)
    return {name: int(ids[canonical]) for canonical, name in names.items()}


def _training_packages(run: LoadedRun) -> Any:
    return Run(run.folder, run.experiment).environment.get("packages")


def check_serving_package() -> None:
    """Raise `UserError` if the package that writes the warm-up requests is missing."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"kerasseg export needs tensorflow-serving-api for the warm-up requests ({error}): "
            "install it with pip install 'kerasseg[serving]'."
        ) from None


def warm_up_requests(
    accepted: Accepted, patch: tuple[int, ...] | None
) -> dict[str, dict[str, Any]]:
    """Return a small request for every signature: signature to input to array or TensorProto.

    Args:
        accepted: The volumes that the model takes.
        patch: Shape (*patch, C) that `serving_default` takes, or None if there is none.
    """
    shape = (
        _WARM_UP_SHAPE[0],
        *(accepted.size or _WARM_UP_SHAPE[1:]),
        len(accepted.modalities),
    )
    volume = np.random.default_rng(0).integers(1, 1000, size=shape).astype(np.float32)
    spacing = np.asarray(accepted.spacing or (0, 0, 0), np.float32)
    requests: dict[str, dict[str, Any]] = {}
    if patch is not None:
        # A patch may have hundreds of megabytes; a single value stands for all of them.
        requests["serving_default"] = {"patches": tf.make_tensor_proto(0.0, shape=(1, *patch))}
    requests["segment"] = {
        "volume": volume,
        "spacing": spacing,
        "probabilities": np.asarray(True),
    }
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
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = folder / WARM_UP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            for key, value in inputs.items():
                array = isinstance(value, np.ndarray)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value) if array else value)
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            file.write(log.SerializeToString())


def write_deployment(folder: Path) -> list[Path]:
    """Write the files that TensorFlow Serving is started with into the folder of the models.

    `models.config` names every model that has a version and is written anew each time. The other
    files are the user's to change, so only those that are missing are written.

    Returns:
        The paths of the files that were written.
    """
    contents = {folder / "models.config": _models_config(folder).encode()}
    for template in sorted(_TEMPLATES.iterdir()):
        if template.is_file() and not (folder / template.name).exists():
            contents[folder / template.name] = template.read_bytes()
    for path, content in contents.items():
        with atomic_write(path, "--output") as temporary:
            temporary.write_bytes(content)
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
