"""LiteRT (TensorFlow Lite): written and read by the parts of it that are in TensorFlow."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError
from kerasseg.serving.formats.refusals import Precision
from kerasseg.serving.formats.runtime import Runtime
from kerasseg.serving.formats.served_graph import served_graph


def check_litert() -> None:
    """Raise `UserError` if TensorFlow has left it to another package."""
    lite = getattr(tf, "lite", None)
    if not (hasattr(lite, "Interpreter") and hasattr(lite, "TFLiteConverter")):
        raise UserError(
            f"TensorFlow {tf.__version__} has no LiteRT converter and interpreter any more, which "
            "--format litert needs: take --format onnx, or tensorflow==2.21."
        )


def write_litert(
    network: keras.Model, path: Path, precision: Precision, calibration: Sequence[np.ndarray]
) -> None:
    """Write the file `path` (.tflite). Raises `UserError` for an operation that LiteRT lacks.

    float16 is of the weights. calibration: patches (1, …, C), needed for int8, of whose operations
    those without a kernel stay in float32, and so do input and output. Of int8 the size is that of
    the patches: with any size TensorFlow 2.21 finds ranges that are wrong.
    """
    size = calibration[0].shape[1:-1] if precision == "int8" else None
    with served_graph(network, size) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([patch] for patch in calibration)
        try:
            path.write_bytes(converter.convert())
        except OSError:
            raise
        except Exception as error:  # ConverterError, which TensorFlow does not name in public
            raise _refusal(network, error) from error


def read_litert(path: Path) -> Runtime:
    """Load the file on the processor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the package will be another one
        interpreter = tf.lite.Interpreter(model_path=str(path))
    ((name, signature),) = interpreter.get_signature_list().items()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    last: list[Any] = [None]

    def predict(patches: np.ndarray) -> np.ndarray:
        if last[0] != patches.shape:
            interpreter.resize_tensor_input(given["index"], patches.shape)
            interpreter.allocate_tensors()
            last[0] = patches.shape
        interpreter.set_tensor(given["index"], patches)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return Runtime(
        name=f"LiteRT in tensorflow {tf.__version__}",
        predict=predict,
        input=signature["inputs"][0],
        output=signature["outputs"][0],
        shape=tuple(None if size < 0 else int(size) for size in given["shape_signature"]),
        advice=f"The signature is {name}. Resize the input before another batch or size.",
    )


def _refusal(network: keras.Model, error: Exception) -> UserError:
    operations = sorted(set(re.findall(r"'tf\.(\w+)' op", str(error))))
    reason = (
        f"it has no operation for {', '.join(operations)}"
        if operations
        else " ".join(str(error).split())[:300]
    )
    return UserError(
        f"--format litert cannot hold {network.name}: {reason}. Take --format onnx or openvino."
    )
