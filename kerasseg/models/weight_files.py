"""Tensors of PyTorch's `.pth` files and of `.safetensors`, read without PyTorch.

A `.pth` file holds a pickle, a program that may call any function of the machine that loads it. It
is not run here: its instructions are followed one by one, and the few that plain tensors need are
the only ones known. `torch.load(weights_only=True)` had holes (CVE-2025-32434, CVE-2026-24747).
"""

import io
import json
import math
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from kerasseg.errors import UserError, describe_storage_error

_FILE_BYTES: Final = 4 << 30
_INSTRUCTIONS: Final = 5_000_000
_OPEN: Final = 100_000
_TENSORS: Final = 100_000
_DIMENSIONS: Final = 32
"""Most bytes of a file; instructions of a pickle, and its values and marks that are begun and not
finished at one time; tensors; dimensions of one. SAM's largest file has 2.6 GB and 600 tensors."""

_BFLOAT16: Final = "bfloat16"
_DTYPES: Final = {
    "F64": ("Double", "<f8"),
    "F32": ("Float", "<f4"),
    "F16": ("Half", "<f2"),
    "BF16": ("BFloat16", _BFLOAT16),
    "I64": ("Long", "<i8"),
    "I32": ("Int", "<i4"),
    "I16": ("Short", "<i2"),
    "I8": ("Char", "|i1"),
    "U8": ("Byte", "|u1"),
    "BOOL": ("Bool", "|b1"),
}
"""The name in `.safetensors` -> the class of PyTorch's storage, NumPy's type."""

_ORDERED_DICT: Final = "collections.OrderedDict"
_TENSOR: Final = "torch._utils._rebuild_tensor_v2"
_PARAMETER: Final = "torch._utils._rebuild_parameter"
_STORAGES: Final = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.values()}
_GLOBALS: Final = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGES}

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LEGACY_START: Final = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")


class _NotPlainTensorsError(ValueError):
    """The file is whole, but holds more than tensors, or what is not read here."""


class _Global(str):
    """The name of a class or function, which a text of the same letters is not."""


class _Storage(NamedTuple):
    key: str
    dtype: str
    numbers: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file of weights; nothing that the file says is run.

    Returns name -> tensor in PyTorch's layout (a convolution is (out, in, h, w)), read-only.
    bfloat16 becomes float32, which NumPy has; the others keep their type. The prefix "module.",
    which PyTorch's DataParallel puts before each name, is removed. Raises `UserError` if there is
    no such file, it is damaged, or it holds more than plain tensors.

    Args:
        path: A `.pth` file of `torch.save` (the zip container, or the one before PyTorch 1.6) that
            holds a state dictionary, or one dictionary with it beside other things, as
            `{"model": ..., "epoch": 3}`; or a `.safetensors` file. The content decides, not the
            ending of the name.
    """
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise _NotPlainTensorsError(f"it is larger than {_FILE_BYTES >> 30} GiB")
        data = path.read_bytes()
        if data.startswith(b"PK\x03\x04"):
            tensors = _state(*_read_zip(data))
        elif data.startswith(_LEGACY_START):
            tensors = _state(*_read_legacy(data))
        elif data[8:9] == b"{":
            tensors = dict(_read_safetensors(memoryview(data)))
        else:
            raise ValueError(f"it begins with {data[:12]!r}, as neither of these formats does")
    except OSError as error:
        raise UserError(
            f"The file of weights {path} cannot be read: {describe_storage_error(error)}."
        ) from None
    except _NotPlainTensorsError as error:
        raise UserError(
            f"{path} is not used: {error}. Expected tensors in one dictionary and nothing else, "
            "because nothing in a file of weights is run here: save it again where it comes from, "
            "with torch.save(model.state_dict(), FILE) or as .safetensors."
        ) from None
    except Exception as error:  # what damaged bytes raise has no common type
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is not a whole .pth or .safetensors file ({found}): is it a web page, or half "
            "a download? Remove it and fetch it again."
        ) from error
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): values for name, values in tensors.items()}
    return tensors


def _state(content: Any, storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the state dictionary in what a pickle held, with its values."""
    candidates = {"": content} | (content if isinstance(content, dict) else {})
    found = {}
    for name, candidate in candidates.items():
        if isinstance(candidate, dict):
            tensors = {k: v for k, v in candidate.items() if isinstance(v, _Tensor)}
            if tensors:
                found[name] = tensors
    if not found:
        raise _NotPlainTensorsError("it holds no dictionary of tensors")
    if "" not in found and len(found) > 1:
        raise _NotPlainTensorsError(
            f"it holds several dictionaries of tensors ({', '.join(map(str, found))})"
        )
    state = found.get("") or next(iter(found.values()))
    return {str(k): _view(storages[tensor.storage.key], tensor) for k, tensor in state.items()}


def _view(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """Return a tensor, whose place was checked by `_rebuild`, as a view of its storage."""
    if 0 in tensor.size:
        return np.zeros(tensor.size, values.dtype)
    strides = [step * values.itemsize for step in tensor.stride]
    start = values[tensor.offset :]
    return np.lib.stride_tricks.as_strided(start, tensor.size, strides, writeable=False)


def _values(data: memoryview | bytes, dtype: str) -> np.ndarray:
    """Return the values in `data`; bfloat16 are the upper halves of float32."""
    if dtype == _BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, dtype)


def _bytes(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _read_zip(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the container of PyTorch 1.6 and later: a pickle, and a member for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise _NotPlainTensorsError("its members are compressed, which PyTorch never does")
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise ValueError("its members claim more bytes than the file has")
        pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise _NotPlainTensorsError("it is a zip file without the data.pkl of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise _NotPlainTensorsError("its bytes are in big-endian order")
        content, storages = _follow(io.BytesIO(archive.read(pickles[0])))
        values = {}
        for key, storage in storages.items():
            stored = archive.read(f"{folder}data/{key}")
            expected = storage.numbers * _bytes(storage.dtype)
            if len(stored) != expected:
                raise ValueError(f"storage {key} has {len(stored)} bytes, not {expected}")
            values[key] = _values(stored, storage.dtype)
    return content, values


def _read_legacy(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the container before PyTorch 1.6: five pickles, then the storages one by one."""
    file = io.BytesIO(data)
    _, protocol, system = (_follow(file)[0] for _ in range(3))
    if protocol != 1001 or system["little_endian"] is not True:
        raise _NotPlainTensorsError("it is of another version, or in big-endian order")
    content, storages = _follow(file)
    keys, _ = _follow(file)
    if sorted(keys) != sorted(storages):
        raise ValueError("the storages are not those that its tensors name")
    values, place = {}, file.tell()
    for key in keys:
        storage = storages[key]
        start = place + 8
        place = start + storage.numbers * _bytes(storage.dtype)
        count = int.from_bytes(data[start - 8 : start], "little")
        if count != storage.numbers or place > len(data):
            raise ValueError(f"storage {key} is not there with its {storage.numbers} values")
        values[key] = _values(memoryview(data)[start:place], storage.dtype)
    return content, values


def _read_safetensors(data: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    """Read the length of a header, the header in JSON, and the values at the places it names."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError(f"its header ends at byte {start} of {len(data)}")
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    if len(header) > _TENSORS:
        raise _NotPlainTensorsError(f"it has more than {_TENSORS:,} tensors")
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise _NotPlainTensorsError(f"tensor {name} is of the type {entry['dtype']}")
        dtype, size = _DTYPES[entry["dtype"]][1], _integers(entry["shape"])
        first, last = _integers(entry["data_offsets"])
        if last - first != math.prod(size) * _bytes(dtype) or start + last > len(data):
            raise ValueError(f"tensor {name} of size {size} is not at bytes {first} to {last}")
        yield name, _values(data[start + first : start + last], dtype).reshape(size)


def _integers(numbers: Any) -> tuple[int, ...]:
    """Return numbers from a file as a tuple, or raise ValueError if one is not a count."""
    if not isinstance(numbers, list | tuple) or len(numbers) > _DIMENSIONS:
        raise ValueError(f"expected at most {_DIMENSIONS} sizes")
    if any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
        raise ValueError("a size, stride or place is not a whole number from 0")
    return tuple(numbers)


def _follow(file: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """Follow the instructions of one pickle: its content and the storages that it names.

    Nothing is imported, called or hashed but what stands here, and nothing is done recursively.
    Raises `ValueError` if the pickle ends too early, or its instructions make no sense;
    `_NotPlainTensorsError` if it needs more than dictionaries, lists, numbers, texts and tensors.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, _Storage] = {}
    argument: Any
    tensors = 0

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def popped(count: int) -> list[Any]:
        if len(stack) - (marks[-1] if marks else 0) < count:
            raise ValueError("an instruction of the pickle lacks its values")
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if number >= _INSTRUCTIONS or len(stack) + len(marks) > _OPEN or tensors > _TENSORS:
            raise _NotPlainTensorsError("its pickle is nested without end, or endless")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return popped(1)[0], storages
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True}.get(instruction.name, False))
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
                | "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING"
            ):  # fmt: skip
                stack.append(argument)
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(_flat_tuple(popped(int(instruction.name[-1]))))
            case "TUPLE":
                stack.append(_flat_tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "APPEND" | "APPENDS":
                items = popped(1) if instruction.name == "APPEND" else since_mark()
                _top(stack, list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = popped(2) if instruction.name == "SETITEM" else since_mark()
                _put(_top(stack, dict), items[::2], items[1::2])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(_known(".".join(popped(2))))
            case "BINPERSID":
                storage = _storage(popped(1)[0])
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"storage {storage.key} is claimed with two sizes or types")
                stack.append(storage)
            case "REDUCE":
                stack.append(_rebuild(*popped(2)))
                tensors += isinstance(stack[-1], _Tensor)
            case "BUILD":
                popped(1)  # PyTorch's versions of the layers, kept as an attribute
                _top(stack, dict)
            case name:
                raise _NotPlainTensorsError(f"its pickle has the instruction {name}")
    raise ValueError("the pickle has no end")


def _top(stack: list[Any], kind: type) -> Any:
    """Return the last value, whose type is known to be `kind`."""
    if type(stack[-1]) is not kind:
        raise _NotPlainTensorsError(f"its pickle changes a {type(stack[-1]).__name__}")
    return stack[-1]


def _flat_tuple(items: list[Any]) -> tuple[Any, ...]:
    """Return a tuple; tensors need short tuples of tuples of numbers, and no deeper ones."""
    inner = [value for item in items if type(item) is tuple for value in item]
    if len(items) > _DIMENSIONS or any(type(value) is tuple for value in inner):
        raise _NotPlainTensorsError("its pickle has nested or very long tuples")
    return tuple(items)


def _put(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    if len(keys) != len(values) or any(type(key) not in (str, int) for key in keys):
        raise _NotPlainTensorsError("a name in its dictionaries is neither text nor number")
    target.update(zip(keys, values, strict=True))


def _known(name: str) -> _Global:
    if name not in _GLOBALS:
        raise _NotPlainTensorsError(f"its pickle asks for {name[:100]}, which was not run")
    return _Global(name)


def _storage(identity: Any) -> _Storage:
    """Return the storage of ("storage", class, key, device, count), or with a None behind it."""
    kind, cls, key, _, count, *view = identity
    if kind != "storage" or not isinstance(cls, _Global) or type(key) is not str or any(view):
        raise _NotPlainTensorsError("it names a storage in a way that is not known")
    return _Storage(key, _STORAGES[cls], _integers((count,))[0])


def _rebuild(function: Any, arguments: Any) -> Any:
    """Do what one of the three known functions does."""
    if not isinstance(function, _Global) or type(arguments) is not tuple:
        raise _NotPlainTensorsError("its pickle calls what is no function")
    if function == _ORDERED_DICT:
        result: dict[Any, Any] = {}
        for key, value in arguments[0] if arguments else ():  # as Python 2 wrote it
            _put(result, [key], [value])
        return result
    if function == _PARAMETER:
        if not isinstance(arguments[0], _Tensor):
            raise _NotPlainTensorsError("its pickle has a parameter that is no tensor")
        return arguments[0]
    if function != _TENSOR:
        raise _NotPlainTensorsError(f"its pickle calls {function}")
    storage, start, *sizes = arguments[:4]
    if not isinstance(storage, _Storage):
        raise _NotPlainTensorsError("its pickle has a tensor without a storage")
    (offset,), size, stride = _integers((start,)), _integers(sizes[0]), _integers(sizes[1])
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    # A stride of 0 would let one value stand for any number of them.
    if 0 not in size and (end > storage.numbers or math.prod(size) > storage.numbers):
        raise ValueError(
            f"a tensor of size {size}, stride {stride} and offset {offset} lies outside of its "
            f"storage of {storage.numbers} values"
        )
    return _Tensor(storage, offset, size, stride)
