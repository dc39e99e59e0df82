"""The messages of TensorFlow Serving's protocols, and NumPy arrays in them, without TensorFlow."""

import importlib
import importlib.util
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

from kerasseg.errors import UserError


def missing_extra(error: ImportError) -> UserError:
    """Return the error for a package of the extra `serving` that could not be imported."""
    return UserError(
        f"{error.name or error} is missing, which serving needs: pip install 'kerasseg[serving]'."
    )


_MODULES: Final = (
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
)

_LOCK = threading.Lock()


@cache
def serving_apis() -> Any:
    """Return a namespace of the modules of `tensorflow_serving.apis` by their names, and `grpc`.

    Their messages need those of `tensorflow.core`, and importing any part of TensorFlow runs all of
    it: 7.4 s instead of 0.2 s (`python -m benchmarks.serving_wire imports`, 2 cores). So while
    they are imported an empty package of the same folder stands in its place, unless TensorFlow
    was there before. `import tensorflow` works as ever afterwards.

    Raises:
        UserError: If the extra is missing.
    """
    try:
        import grpc

        with _LOCK, _light_tensorflow():
            modules = {
                name: importlib.import_module(f"tensorflow_serving.apis.{name}")
                for name in _MODULES
            }
    except ImportError as error:
        raise missing_extra(error) from error
    return SimpleNamespace(grpc=grpc, **modules)


@contextmanager
def _light_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("No module named 'tensorflow'", name="tensorflow")
    stand_in = ModuleType("tensorflow")
    stand_in.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = stand_in
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


STRING: Final = 7
"""DT_STRING of tensorflow/core/framework/types.proto."""
_NUMBERS: Final[dict[int, tuple[np.dtype, str]]] = {
    1: (np.dtype(np.float32), "float_val"),
    2: (np.dtype(np.float64), "double_val"),
    3: (np.dtype(np.int32), "int_val"),
    4: (np.dtype(np.uint8), "int_val"),
    5: (np.dtype(np.int16), "int_val"),
    6: (np.dtype(np.int8), "int_val"),
    9: (np.dtype(np.int64), "int64_val"),
    10: (np.dtype(np.bool_), "bool_val"),
    17: (np.dtype(np.uint16), "int_val"),
    19: (np.dtype(np.float16), "half_val"),
    22: (np.dtype(np.uint32), "uint32_val"),
    23: (np.dtype(np.uint64), "uint64_val"),
}
"""Number in types.proto to dtype, and the field of values that are no `tensor_content`."""
_CODES: Final = {dtype: code for code, (dtype, _) in _NUMBERS.items()}


def to_proto(value: np.ndarray | bytes | str) -> Any:
    """Return a TensorProto of an array of numbers or of bytes (dtype object), or of one string."""
    message = serving_apis().predict_pb2.PredictRequest().inputs["value"]
    if isinstance(value, str):
        value = value.encode()
    array = np.asarray(value, object) if isinstance(value, bytes) else np.asarray(value)
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        message.dtype = STRING
        message.string_val.extend(array.ravel().tolist())
        return message
    message.dtype = _CODES[array.dtype.newbyteorder("=")]
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    message.tensor_content = little.tobytes()
    return message


def from_proto(message: Any, most_bytes: int | None = None) -> np.ndarray:
    """Return the array of a TensorProto; strings become bytes in an array of dtype object.

    Args:
        message: A TensorProto.
        most_bytes: Bytes that the shape may claim. A shape costs nothing to write, the array does.

    Raises:
        ValueError: For a type that is not served, and for content that does not fill the shape.
        OverflowError: For a shape that claims more than `most_bytes`.
    """
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    if message.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"has the impossible shape {shape}")
    count = math.prod(shape)
    if message.dtype == STRING:
        values = list(message.string_val)
        if len(values) != count:
            raise ValueError(f"has {len(values)} strings, but its shape {shape} claims {count}")
        strings = np.empty(count, object)
        strings[:] = values
        return strings.reshape(shape)
    if message.dtype not in _NUMBERS:
        raise ValueError(f"has the type {message.dtype} of types.proto, which is not served")
    dtype, field = _NUMBERS[message.dtype]
    if most_bytes is not None and count * dtype.itemsize > most_bytes:
        raise OverflowError(
            f"has the shape {shape}, which claims {count * dtype.itemsize / 2**20:,.0f} MiB; at "
            f"most {most_bytes / 2**20:,.0f} MiB are taken"
        )
    if message.tensor_content:
        found = len(message.tensor_content)
        if found != count * dtype.itemsize:
            raise ValueError(
                f"has {found} bytes, but its shape {shape} of {dtype} claims "
                f"{count * dtype.itemsize}"
            )
        stored = np.frombuffer(message.tensor_content, dtype.newbyteorder("<"))
        return stored.astype(dtype, copy=False).reshape(shape)
    raw = getattr(message, field)
    half = field == "half_val"
    given = np.asarray(raw, np.uint16).view(dtype) if half else np.asarray(raw, dtype)
    if len(given) > count or (count and not len(given)):
        raise ValueError(f"has {len(given)} values, but its shape {shape} claims {count}")
    # By tensor.proto, values that are left out at the end repeat the last one.
    filled = np.empty(count, dtype)
    filled[: len(given)] = given
    if len(given) < count:
        filled[len(given) :] = given[-1]
    return filled.reshape(shape)
