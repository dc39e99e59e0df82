"""A volume -> the smallest bytes that hold it exactly."""

from dataclasses import dataclass

import numpy as np
from isal import igzip

from kerasseg.errors import UserError

_LEVEL = 2
"""Of isal's 0 to 3."""
_LARGEST_MESSAGE = 2**31 - 2**16
"""Bytes of a protobuf message, less what stands around the volume."""


@dataclass(frozen=True)
class PackedVolume:
    """data: the values in C order, little-endian, compressed as `compression` ("" or "gzip") says.
    raw_bytes: what they weigh as float32."""

    data: bytes
    shape: tuple[int, ...]
    dtype: str
    compression: str
    raw_bytes: int


def pack_volume(image: np.ndarray, *, compress: bool) -> PackedVolume:
    """(D, H, W, C) float32 -> bytes of the first of int16, float16 and float32 that is exact.

    Raises `UserError` for a volume that is too large for one message.
    """
    values = exact(image)
    data: bytes = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    if compress:
        data = igzip.compress(data, _LEVEL)
    if len(data) > _LARGEST_MESSAGE:
        raise UserError(
            f"The volume {image.shape} weighs {len(data) / 2**30:.1f} GiB as {values.dtype}, more "
            "than the 2 GiB of one message: crop it, or compress it with --compression gzip."
        )
    return PackedVolume(
        data, image.shape, values.dtype.name, "gzip" if compress else "", image.size * 4
    )


def exact(image: np.ndarray) -> np.ndarray:
    """The same values as int16 if all are whole and fit, else as float16 if it holds them, else as
    float32."""
    int16 = np.iinfo(np.int16)
    if int16.min <= image.min() and image.max() <= int16.max:
        whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    with np.errstate(over="ignore"):
        half = image.astype(np.float16)
    if np.array_equal(half, image):
        return half
    return np.asarray(image, np.float32)
