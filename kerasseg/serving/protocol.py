"""The messages of TensorFlow Serving's protocols, and NumPy arrays in them, without TensorFlow."""

import importlib
import importlib.util
import math
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

from kerasseg.errors import UserError

_MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


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

    Raises `UserError` if the extra is missing.
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


WARM_UP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
LARGEST_VERSION: Final = 2**63 - 1
_LARGEST_REPEATED: Final = 2**20
"""Bytes of a tensor in a request that may be written as one value that is repeated."""
_LARGEST_OVERHEAD: Final = 2**16
_MOST_AXES: Final = 32
"""An array of NumPy 1 has no more."""
_STRING_OVERHEAD: Final = 64
"""Bytes of a short string in Python and of its place in an array."""
_CONTENT: Final = "content"
_REQUEST: Final[dict[int, Any]] = {2: {2: {4: _CONTENT, 5: _CONTENT, 6: _CONTENT, 8: _CONTENT}}}
"""The fields of a PredictRequest that may be large, by the numbers in predict.proto and
tensor.proto: inputs (2) have values (2) that have tensor_content, float_val, double_val and
string_val. Their bytes are about those of the array."""
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

    Raises `ValueError` for a type that is not served, and for content that does not fill the shape;
    `OverflowError` for a shape that claims more than `most_bytes`.

    Args:
        message: A TensorProto.
        most_bytes: Bytes that the shape may claim. A shape costs nothing to write, the array does,
            so a tensor of more than 1 MiB must then hold every one of its values, too.
    """
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    claimed, count = claimed_bytes(message), math.prod(shape)
    if message.dtype == STRING:
        values = list(message.string_val)
        if len(values) != count:
            raise ValueError(
                f"has {len(values)} strings, but its shape {_format_shape(shape)} claims {count}"
            )
        strings = np.empty(count, object)
        strings[:] = values
        return strings.reshape(shape)
    dtype, field = _NUMBERS[message.dtype]
    if most_bytes is not None and claimed > most_bytes:
        raise OverflowError(
            f"has the shape {_format_shape(shape)}, which claims {claimed / 2**20:,.0f} MiB; at "
            f"most {most_bytes / 2**20:,.0f} MiB are taken"
        )
    content = message.tensor_content
    if content:
        if len(content) != claimed:
            raise ValueError(
                f"has {len(content)} bytes, but its shape {_format_shape(shape)} of {dtype} claims "
                f"{claimed}"
            )
        stored = np.frombuffer(content, dtype.newbyteorder("<"))
        return stored.astype(dtype, copy=False).reshape(shape)
    raw = getattr(message, field)
    if len(raw) > count or (count and not len(raw)):
        raise ValueError(
            f"has {len(raw)} values, but its shape {_format_shape(shape)} claims {count}"
        )
    if most_bytes is not None and len(raw) < count and claimed > _LARGEST_REPEATED:
        raise ValueError(
            f"has {len(raw)} value(s) for the {count} that its shape {_format_shape(shape)} "
            "claims: repeat the last one yourself, a tensor of this size is sent whole"
        )
    half = field == "half_val"
    given = np.asarray(raw, np.uint16).view(dtype) if half else np.asarray(raw, dtype)
    # By tensor.proto, values that are left out at the end repeat the last one.
    filled = np.empty(count, dtype)
    filled[: len(given)] = given
    if len(given) < count:
        filled[len(given) :] = given[-1]
    return filled.reshape(shape)


def claimed_bytes(message: Any) -> int:
    """Return the bytes that the array of a TensorProto takes, without making it.

    Raises `ValueError` for an impossible shape, and for a type that is not served.
    """
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    if message.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"has the impossible shape {_format_shape(shape)}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"has a shape of {len(shape)} axes, more than {_MOST_AXES}")
    if message.dtype == STRING:
        return sum(len(value) + _STRING_OVERHEAD for value in message.string_val)
    if message.dtype not in _NUMBERS:
        raise ValueError(f"has the type {message.dtype} of types.proto, which is not served")
    return math.prod(shape) * _NUMBERS[message.dtype][0].itemsize


def _format_shape(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= _MOST_AXES else f"of {len(shape)} axes"


def read_predict_request(data: bytes) -> Any:
    """Return the PredictRequest of its bytes, which must not unfold to many times their size.

    A few bytes of a message may become a large object: an empty string, an axis, an input of its
    own. All that is not the plain content of a tensor is therefore bounded before it is parsed.
    Raises `ValueError` for bytes that are no such message; `OverflowError` for more than 64 KiB of
    anything else than content.
    """
    try:
        _measure_overhead(memoryview(data), 0, len(data), _REQUEST)
        return serving_apis().predict_pb2.PredictRequest.FromString(data)
    except OverflowError:
        raise
    except Exception as error:  # DecodeError is a class of each implementation of protobuf
        raise ValueError(f"The message is no PredictRequest ({type(error).__name__}).") from None


def _measure_overhead(data: memoryview, at: int, end: int, fields: Mapping[int, Any]) -> int:
    """Return the bytes from `at` to `end` that are not contents, as `_REQUEST` names those."""
    total = 0
    while at < end:
        begin = at
        tag, at = _read_varint(data, at, end)
        size, inside = 0, None
        if tag & 7 == 0:
            _, at = _read_varint(data, at, end)
        elif tag & 7 == 2:
            size, at = _read_varint(data, at, end)
            inside = fields.get(tag >> 3)
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("groups are not served")
        if at + size > end:
            raise ValueError("it is cut")
        total += at - begin
        if isinstance(inside, Mapping):
            total += _measure_overhead(data, at, at + size, inside)
        elif inside is None:
            total += size
        at += size
        if total > _LARGEST_OVERHEAD:
            raise OverflowError(
                f"The message holds more than {_LARGEST_OVERHEAD} bytes of names, axes, integers "
                "that are listed one by one and the like: send them as tensor_content."
            )
    return total


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is cut or too long")


def check_output(folder: Path) -> None:
    """Raise `UserError` if no model can be written into `folder`."""
    if not _MODEL_NAME.fullmatch(folder.name):
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


def onnx_files(output: Path) -> list[Path]:
    """Return the paths of the model and of NAME.json beside it, if `output` can be written."""
    if output.suffix != ".onnx":
        raise UserError(f"--output {output}: --format onnx is written to models/NAME.onnx.")
    for path in output.parents:
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {output}: {path} is a file; name another place.")
    places = [output, output.with_suffix(".json")]
    for place in places:
        if place.exists():
            raise UserError(f"--output: {place} is there already: name another, or remove it.")
    return places


def version_number(name: str) -> int | None:
    """Return the version that a folder of this name holds, or None if it is no version's name.

    TensorFlow Serving knows versions as whole numbers of 64 bits.
    """
    if name.isascii() and name.isdecimal() and len(name) <= len(str(LARGEST_VERSION)):
        number = int(name)
        return number if number <= LARGEST_VERSION else None
    return None
