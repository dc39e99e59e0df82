"""The inputs of `segment_bytes`, unfolded under a limit before the graph does it.

`Limits`: how much a server takes on.

`Refusal`: why a request gets no answer, in the words of both protocols.

`Spec`: what a signature says of one of its tensors.

A request's tensors against a signature, before the graph sees them.

Gzip that inflates to what was announced, and to nothing more.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from isal import igzip_lib, isal_zlib

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What bounds the memory and the patience of a server.

    request_bytes: of one request as it comes over the wire, and of the JSON text in it
    volume_bytes:  of one tensor, after its shape or its compression is unfolded
    queue:         requests of one model that wait for the one that is running
    seconds:       for one request, its waiting included; a gRPC deadline may be shorter
    """

    request_bytes: int = 256 * MIB
    volume_bytes: int = 1024 * MIB
    queue: int = 8
    seconds: float = 600.0

    @property
    def at_once(self) -> int:
        """Requests in memory, whatever becomes of them."""
        return self.queue + 8

    @property
    def json_values(self) -> int:
        """Numbers in a request's JSON, 32 bytes each in Python."""
        return self.request_bytes // 4

    @property
    def json_lists(self) -> int:
        """Brackets in a request's JSON; a list of Python weighs 56 bytes without its members."""
        return self.request_bytes // 16


class Reason(Enum):
    """Name of the gRPC status code, HTTP status."""

    BAD_INPUT = ("INVALID_ARGUMENT", 400)
    NOT_FOUND = ("NOT_FOUND", 404)
    TOO_LARGE = ("RESOURCE_EXHAUSTED", 413)
    TOO_MANY = ("RESOURCE_EXHAUSTED", 429)
    FAILED = ("INTERNAL", 500)
    UNAVAILABLE = ("UNAVAILABLE", 503)
    TOO_LATE = ("DEADLINE_EXCEEDED", 504)

    @property
    def grpc_code(self) -> str:
        """A name of `grpc.StatusCode`."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """As TensorFlow Serving has it, and 413 for what is too large."""
        return self.value[1]


class Refusal(Exception):
    """A request that is not answered: the reason, and a sentence for whoever sent it."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class Spec:
    """dtype: NumPy's name of it, or "string". shape: None for any size; None as a whole for any
    rank."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an array of `shape` fits."""
        if self.shape is None:
            return True
        if len(shape) != len(self.shape):
            return False
        pairs = zip(shape, self.shape, strict=True)
        return all(wanted in (None, size) for size, wanted in pairs)

    @property
    def shape_in_words(self) -> str:
        """Such as (any, any, any, 4)."""
        if self.shape is None:
            return "any shape"
        sizes = ["any" if size is None else str(size) for size in self.shape]
        return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def check_inputs(inputs: Mapping[str, np.ndarray], specs: Mapping[str, Spec]) -> None:
    """Names, types and shapes are the signature's, nothing is empty, every number is finite.

    Raises `Refusal` that says what was expected and what was found.
    """
    missing, unknown = set(specs) - set(inputs), set(inputs) - set(specs)
    if missing or unknown:
        raise _bad(
            f"The inputs are {_words(inputs)}, but the signature takes {_words(specs)}: "
            + (f"add {_words(missing)}." if missing else f"leave out {_words(unknown)}.")
        )
    for name, spec in specs.items():
        value = inputs[name]
        found = "string" if value.dtype == object else value.dtype.name
        if found != spec.dtype:
            raise _bad(f"{name} is {found}, expected {spec.dtype}.")
        if not spec.takes(value.shape):
            raise _bad(f"{name} has the shape {value.shape}, expected {spec.shape_in_words}.")
        if 0 in value.shape:
            raise _bad(f"{name} is empty: its shape is {value.shape}.")
        if value.dtype.kind == "f":
            check_finite(name, value)
        if name == "spacing" and (value < 0).any():
            raise _bad(f"spacing is {value.tolist()} mm, expected sizes above 0, or 0 if unknown.")


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises `Refusal` for NaN and infinity."""
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise _bad(f"{name} holds values that are no finite numbers (NaN or infinity).")


def too_large(name: str, count: int, most: int) -> Refusal:
    """The refusal of a claim."""
    return Refusal(
        Reason.TOO_LARGE,
        f"{name} claims {count / MIB:,.0f} MiB; at most {most / MIB:,.0f} MiB are taken.",
    )


def _words(names: Mapping | set) -> str:
    return ", ".join(sorted(names)) or "none"


def _bad(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_INPUT, sentence)


_ERRORS: tuple = (zlib.error, igzip_lib.error, EOFError, ValueError)


def inflate(data: bytes, most: int, what: str, *, exactly: bool) -> bytes:
    """What one gzip member holds, `most` bytes or, unless `exactly`, less.

    Never allocates more than `most` bytes and a little, however small `data` is.

    what: the name of `data` in messages

    Raises `Refusal` for what is no gzip, cut short, or inflates to another size.
    """
    member = isal_zlib.decompressobj(wbits=isal_zlib.MAX_WBITS + 16)
    try:
        result = member.decompress(data, most + 1)
    except _ERRORS as error:
        raise Refusal(
            Reason.BAD_INPUT, f"{what} cannot be inflated as gzip: {error or 'it is damaged'}."
        ) from None
    if len(result) > most:
        claim = "its shape and dtype claim" if exactly else "is taken"
        reason = Reason.BAD_INPUT if exactly else Reason.TOO_LARGE
        raise Refusal(reason, f"{what} inflates to more than the {most} bytes that {claim}.")
    if not member.eof:
        raise Refusal(Reason.BAD_INPUT, f"{what} ends before its gzip stream does: it is cut.")
    if member.unused_data:
        raise Refusal(Reason.BAD_INPUT, f"{what} has bytes behind its gzip stream.")
    if exactly and len(result) != most:
        raise Refusal(
            Reason.BAD_INPUT,
            f"{what} inflates to {len(result)} bytes, but its shape and dtype claim {most}.",
        )
    return result


DTYPES = ("float16", "int16", "float32")
"""What `dtype` may be."""
_COMPRESSIONS = ("", "gzip")


def check_claim(inputs: Mapping[str, np.ndarray], limits: Limits, channels: int | None) -> None:
    """What shape, dtype and compression say, without looking at the bytes.

    channels: what the model takes, where that is known

    Raises `Refusal`.
    """
    for name, values in (("data_bytes", 1), ("dtype", 1), ("compression", 1), ("shape", 4)):
        # A graph may leave ranks open, to say itself what it expects.
        if inputs[name].size != values:
            raise _bad(f"{name} has the shape {inputs[name].shape}, expected {values} value(s).")
    dtype, compression = _text(inputs, "dtype"), _text(inputs, "compression")
    if dtype not in DTYPES:
        raise _bad(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if compression not in _COMPRESSIONS:
        raise _bad(f"compression is {compression!r}, expected gzip or nothing.")
    sizes = [int(size) for size in inputs["shape"].flat]
    if any(size < 1 for size in sizes):
        raise _bad(f"shape is {sizes}, expected (depth, height, width, channels) above 0.")
    # The graph works on float32, whatever came.
    claimed = math.prod(sizes) * 4
    if claimed > limits.volume_bytes:
        raise too_large(f"shape {sizes}", claimed, limits.volume_bytes)
    if channels is not None and sizes[3] != channels:
        raise _bad(f"shape is {sizes}: {sizes[3]} channel(s), but the model takes {channels}.")
    found, wanted = len(inputs["data_bytes"].item()), _claimed_bytes(inputs)
    if not compression and found != wanted:
        raise _bad(
            f"data_bytes has {found} bytes, but shape {sizes} and dtype {dtype} claim {wanted}."
        )


def unpack_volume(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same inputs with plain bytes, of exactly the size that they claim, all finite.

    Raises `Refusal`.
    """
    data, dtype = inputs["data_bytes"].item(), _text(inputs, "dtype")
    if _text(inputs, "compression"):
        data = inflate(data, _claimed_bytes(inputs), "data_bytes", exactly=True)
    if dtype != "int16":
        check_finite("data_bytes", np.frombuffer(data, np.dtype(dtype).newbyteorder("<")))
    plain = {"data_bytes": data, "compression": b""}
    return {**inputs, **{name: np.asarray(value, object) for name, value in plain.items()}}


def _claimed_bytes(inputs: Mapping[str, np.ndarray]) -> int:
    return math.prod(map(int, inputs["shape"].flat)) * np.dtype(_text(inputs, "dtype")).itemsize


def _text(inputs: Mapping[str, np.ndarray], name: str) -> str:
    return inputs[name].item().decode("utf-8", "replace")
