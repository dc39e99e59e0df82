"""The inputs of `segment_bytes`, unfolded under a limit before the graph does it."""

import math
from collections.abc import Mapping

import numpy as np

from kerasseg.serving.server.check_inputs import check_finite, too_large
from kerasseg.serving.server.inflate import inflate
from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.refusal import Reason, Refusal

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


def _bad(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_INPUT, sentence)
