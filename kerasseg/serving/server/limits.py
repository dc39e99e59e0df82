"""The limits of a server, and how it refuses a request that exceeds them.

The graph of an exported model checks its inputs itself. What is checked here comes before that:
whether the inputs are those of the signature, and how much memory they would take.
"""

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from isal import igzip_lib, isal_zlib

MIB = 2**20
_PATH = re.compile(r"(?<![\w./])/(?:[^\s/:;,'\"()\[\]]+/)+")
_MOST_NAMES = 20
_LONGEST_NAME = 200
"""A refusal repeats no more of the names in a request, which may have many and long ones."""


@dataclass(frozen=True)
class Limits:
    """Limits of the memory and the time that requests take.

    Attributes:
        request_bytes: Of one request as it comes over the wire, and of the JSON text in it.
        volume_bytes: Of one tensor, after its shape or its compression is unfolded.
        queue: Requests of one model that may wait for the one that is running.
        seconds: For one request, its waiting included; a gRPC deadline may be shorter.
        silent_seconds: How long a client may keep the server waiting: for the next bytes of its
            request, for a whole head of HTTP, or by not reading its answer.
        grace_seconds: How long a client may be silent before its request makes room for another
            one, when there is none left.
        connections: HTTP connections that may be open; one more closes the longest silent one.
    """

    request_bytes: int = 256 * MIB
    volume_bytes: int = 1024 * MIB
    queue: int = 8
    seconds: float = 600.0
    silent_seconds: float = 30.0
    grace_seconds: float = 2.0
    connections: int = 512

    @property
    def at_once(self) -> int:
        """Requests that may be in memory, whatever becomes of them."""
        return self.queue + 8

    @property
    def json_values(self) -> int:
        """Numbers in a request's JSON; each takes 32 bytes in Python."""
        return self.request_bytes // 4

    @property
    def json_lists(self) -> int:
        """Brackets in a request's JSON; an empty list of Python takes 56 bytes."""
        return self.request_bytes // 16


class Reason(Enum):
    """Why a request is refused: the name of a `grpc.StatusCode`, and an HTTP status.

    The HTTP statuses are TensorFlow Serving's, and 413 for what is too large.
    """

    BAD_INPUT = ("INVALID_ARGUMENT", 400)
    NOT_FOUND = ("NOT_FOUND", 404)
    TOO_LARGE = ("RESOURCE_EXHAUSTED", 413)
    TOO_MANY = ("UNAVAILABLE", 429)
    FAILED = ("INTERNAL", 500)
    UNAVAILABLE = ("UNAVAILABLE", 503)
    TOO_LATE = ("DEADLINE_EXCEEDED", 504)

    def __init__(self, grpc_code: str, http_status: int) -> None:
        self.grpc_code, self.http_status = grpc_code, http_status


class Refusal(Exception):
    """A request that is not answered: the reason, and a sentence for its sender."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


def bad_input(sentence: str) -> Refusal:
    """Return the refusal of a request that has a mistake."""
    return Refusal(Reason.BAD_INPUT, sentence)


@dataclass(frozen=True)
class Spec:
    """The type and the shape that a signature takes as one of its inputs.

    Attributes:
        dtype: NumPy's name of it, or "string".
        shape: None for an axis of any size; None as a whole for any rank.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


def check_inputs(inputs: Mapping[str, np.ndarray], specs: Mapping[str, Spec]) -> None:
    """Raise `Refusal` if names, types or shapes of the inputs are not those of the signature.

    So it is for an input of a fixed shape that is empty, or holds NaN or infinity.
    """
    check_names(inputs, specs)
    for name, spec in specs.items():
        value = inputs[name]
        found = "string" if value.dtype == object else value.dtype.name
        if found != spec.dtype:
            raise bad_input(f"{name} is {found}, expected {spec.dtype}.")
        if spec.shape is None:
            continue
        fits = len(value.shape) == len(spec.shape) and all(
            expected in (None, size) for size, expected in zip(value.shape, spec.shape, strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in spec.shape)
            raise bad_input(f"{name} has the shape {value.shape}, expected ({sizes}).")
        # A graph that leaves the shape open checks the values itself, this one does not.
        if 0 in value.shape:
            raise bad_input(f"{name} is empty: its shape is {value.shape}.")
        # Not of every value: that would be an array of its own, and several requests come at once.
        if value.dtype.kind == "f" and not np.isfinite([value.min(), value.max()]).all():
            raise bad_input(f"{name} holds values that are NaN or infinite.")


def check_names(inputs: Iterable[str], specs: Iterable[str]) -> None:
    """Raise `Refusal` if the names of the inputs are not those of the signature."""
    missing, unknown = set(specs) - set(inputs), set(inputs) - set(specs)
    if missing or unknown:
        mend = f"add {_join(missing)}" if missing else f"leave out {_join(unknown)}"
        raise bad_input(
            f"The inputs are {_join(inputs)}, but the signature takes {_join(specs)}: {mend}."
        )


def check_volume_bytes(inputs: Mapping[str, np.ndarray], limits: Limits) -> None:
    """Raise `Refusal` if the inputs of `segment_bytes` claim more memory than a volume may have."""
    for name, count in (("data_bytes", 1), ("compression", 1), ("shape", 4)):
        if inputs[name].size != count:
            raise bad_input(
                f"{name} has the shape {inputs[name].shape}, expected {count} value(s)."
            )
    if _claimed_bytes(inputs) > limits.volume_bytes:
        raise Refusal(
            Reason.TOO_LARGE,
            f"shape {inputs['shape'].tolist()} claims {_claimed_bytes(inputs) / MIB:,.0f} MiB; at "
            f"most {limits.volume_bytes / MIB:,.0f} MiB are taken.",
        )


def inflate_volume(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs of `segment_bytes` with plain bytes instead of gzip.

    TensorFlow's operation for gzip knows no limit of memory, this one does. Whether the bytes are
    exactly those of the shape, the graph checks. Raises `Refusal` if the bytes are no gzip, or hold
    more than the shape claims.
    """
    if inputs["compression"].item() != b"gzip":
        return dict(inputs)
    most = max(_claimed_bytes(inputs), 0)
    plain = inflate(inputs["data_bytes"].item(), most, "data_bytes", Reason.BAD_INPUT)
    return {
        **inputs,
        "data_bytes": np.asarray(plain, object),
        "compression": np.asarray(b"", object),
    }


def _claimed_bytes(inputs: Mapping[str, np.ndarray]) -> int:
    # As float32: the graph works on it, whatever dtype the bytes have.
    return 4 * math.prod(int(size) for size in inputs["shape"].flat)


def inflate(data: bytes, most: int, name: str, reason: Reason) -> bytes:
    """Return the contents of one gzip member, without ever allocating much more than `most` bytes.

    Raises `Refusal` if `data` is no gzip, is cut short, or holds more.

    Args:
        most: Bytes that it may hold.
        reason: The reason for which it is refused if it holds more.
    """
    errors: tuple = (zlib.error, igzip_lib.error, EOFError, ValueError)
    member = isal_zlib.decompressobj(wbits=isal_zlib.MAX_WBITS + 16)
    try:
        result = member.decompress(data, most + 1)
    except errors as error:
        raise bad_input(f"{name} cannot be inflated as gzip: {error or 'it is damaged'}.") from None
    if len(result) > most:
        raise Refusal(reason, f"{name} inflates to more than the {most} bytes that it may have.")
    if not member.eof:
        raise bad_input(f"{name} ends before its gzip stream does: it is cut.")
    if member.unused_data:
        raise bad_input(f"{name} has bytes behind its gzip stream.")
    return result


def without_folders(text: str) -> str:
    """Return a message with the names of files instead of their absolute paths."""
    return _PATH.sub("", text)


def _join(names: Iterable[str]) -> str:
    shown = sorted(names)
    if len(shown) > _MOST_NAMES:
        shown = [*shown[:_MOST_NAMES], f"{len(shown) - _MOST_NAMES} more"]
    return ", ".join(name[:_LONGEST_NAME] for name in shown) or "none"
