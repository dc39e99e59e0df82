"""`assets.extra/tf_serving_warmup_requests`: a request of every kind, replayed at the start.

What the signature `metadata` tells of a model.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from kerasseg import __version__, anatomy
from kerasseg.config.load import dump_experiment
from kerasseg.errors import UserError
from kerasseg.prediction.model import LoadedRun, Model
from kerasseg.serving.graph_input import COMPRESSIONS, DTYPES, Accepted


def describe(
    model: Model, accepted: Accepted, ids: Mapping[int, int], *, gzip: bool
) -> dict[str, Any]:
    """Name -> what JSON can hold; the names are those of `docs/serving.md`."""
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
        "config": "---\n".join(dump_experiment(run.experiment) for run in model.runs),
        "score": {run.folder.name: _read(run, "summary.json").get("dice") for run in model.runs},
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
            "trained_with": {
                run.folder.name: _read(run, "environment.json").get("packages")
                for run in model.runs
            },
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": [run.folder.name for run in model.runs],
    }


def label_names(target: str, ids: Mapping[int, int]) -> dict[str, int]:
    """Names of a segmentation's labels, background first -> the id that each has in `ids`."""
    names = {anatomy.BACKGROUND: anatomy.LABELS[anatomy.BACKGROUND], anatomy.TUMOUR: "tumour"}
    if target != "binary":
        names = dict(anatomy.LABELS)
    return {name: int(ids[canonical]) for canonical, name in names.items()}


def _read(run: LoadedRun, name: str) -> dict[str, Any]:
    """A file of the run; empty where its training was stopped before it was written."""
    path = run.folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


WARM_UP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
_SHAPE: Final = (4, 5, 6)
"""Of the volume: one window of any network."""


def check_serving_package() -> None:
    """Raise `UserError` if what writes the requests is not installed."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"kerasseg export needs tensorflow-serving-api for the warm-up requests ({error}): "
            "install it with pip install 'kerasseg[serving]'."
        ) from None


def write_warm_up(folder: Path, name: str, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Write TFRecords of `PredictionLog` into the SavedModel in `folder`.

    name:     of the model
    requests: signature -> input -> array, or TensorProto
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
                request.inputs[key].CopyFrom(_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            file.write(log.SerializeToString())


def warm_up_requests(
    accepted: Accepted, patch: tuple[int, ...] | None
) -> dict[str, dict[str, Any]]:
    """Signature -> inputs of a small request.

    patch: (*patch, C) of `serving_default`, where there is one
    """
    return dict(_requests(accepted, patch))


def _requests(
    accepted: Accepted, patch: tuple[int, ...] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    if patch is not None:
        # A patch may have hundreds of megabytes; a single value stands for all of them.
        proto = tf.make_tensor_proto(0.0, shape=(1, *patch))
        yield "serving_default", {"patches": proto}
    shape = (_SHAPE[0], *(accepted.size or _SHAPE[1:]), len(accepted.modalities))
    volume = np.random.default_rng(0).integers(1, 1000, size=shape).astype(np.float32)
    spacing = np.asarray(accepted.spacing or (0, 0, 0), np.float32)
    yield (
        "segment",
        {"volume": volume, "spacing": spacing, "probabilities": np.asarray(True)},
    )
    yield (
        "segment_bytes",
        {
            "data_bytes": np.asarray(volume.astype("<i2").tobytes(), object),
            "shape": np.asarray(shape, np.int32),
            "dtype": np.asarray(b"int16", object),
            "compression": np.asarray(b"", object),
            "spacing": spacing,
            "probabilities": np.asarray(False),
        },
    )
    yield "metadata", {"request": np.asarray(b"", object)}


def _proto(value: Any) -> Any:
    return tf.make_tensor_proto(value) if isinstance(value, np.ndarray) else value
