"""Decoding and checking the inputs of a client in the graph of an exported model.

A volume that cannot be segmented is refused with a sentence. Nothing is allocated before the
lengths of the bytes fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import tensorflow as tf

from kerasseg.datasets.checks import LONGEST_MM, SHORTEST_MM, VOXEL_MM, voxel_limits, voxel_note

DTYPES: Final = MappingProxyType({"float16": 2, "int16": 2, "float32": 4})
"""The types of values that a volume may have, little-endian, and the bytes of each."""
COMPRESSIONS: Final = ("", "gzip")

_GZIP_START: Final = b"\x1f\x8b\x08"
_SHORTEST_GZIP: Final = 18
"""Bytes: header and trailer (RFC 1952)."""
_HIGHEST_RATIO: Final = 1032
"""The most that deflate can compress: 258 bytes into 2 bits (zlib.net/zlib_tech.html)."""
_LARGEST_GROWTH: Final = 1024
"""Bytes that gzip may add: 5 for each 16 KiB or more, and a header with a file's name."""


@dataclass(frozen=True)
class Accepted:
    """The volumes that a model takes.

    Attributes:
        modalities: the channels in order.
        voxels: the largest D x H x W.
        spacing: (D, H, W) in mm that volumes are resampled to, or None.
        size: height and width that pictures are resized to, or None.
        cubic: whether volumes are resampled by cubic splines, else linearly.
        volumes: whether a single slice is refused.
        trained: smallest and largest voxel (D, H, W) in mm of the training's scans, where known.
    """

    modalities: tuple[str, ...]
    voxels: int
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    cubic: bool = True
    volumes: bool = True
    trained: tuple[Sequence[float], Sequence[float]] | None = None

    @property
    def shape(self) -> str:
        """Return the shape as it is said in messages."""
        channels = len(self.modalities)
        return f"(depth, height, width, {channels}), the channels {', '.join(self.modalities)}"


def check_shape(shape: Any, accepted: Accepted) -> Any:
    """Return a shape (n,) of integers as (4,) int64, or refuse it."""
    given = tf.reshape(tf.cast(shape, tf.int64), [-1])
    # Always four numbers: what comes next may be computed before the assertion has failed.
    shape = tf.reshape(tf.concat([given, [1, 1, 1, 1]], 0)[:4], [4])
    fits = (tf.size(given) == 4) & (shape[3] == len(accepted.modalities))
    channels = require(fits, f"the volume's shape is {{}}, expected {accepted.shape}", given)
    with tf.control_dependencies([channels]):
        shape = tf.identity(shape)
    empty = require(tf.reduce_all(shape > 0), "the volume's shape is {}: it holds no voxel", shape)
    # As float64, in which no product of three 32-bit numbers overflows.
    voxels = tf.reduce_prod(tf.cast(shape[:3], tf.float64))
    large = require(
        voxels <= accepted.voxels,
        f"the volume's shape is {{}}: more than {accepted.voxels} voxels, the limit that this "
        "model was exported with",
        shape,
    )
    checks = [empty, large]
    if accepted.volumes:
        checks.append(
            require(
                shape[0] > 1,
                "the volume's shape is {}: a single slice, but this model takes whole volumes",
                shape,
            )
        )
    with tf.control_dependencies(checks):
        return tf.identity(shape)


def check_values(volume: Any, accepted: Accepted) -> Any:
    """Return a volume (D, H, W, C), or refuse one with NaN or a constant channel."""
    # A sum with a value that is NaN or infinite is so, too. It may overflow without one: then every
    # value is looked at. A channel that varies in the middle plane is not looked at further.
    bad = tf.cond(
        tf.math.is_finite(tf.reduce_sum(volume)),
        lambda: tf.constant(0, tf.int64),
        lambda: tf.math.count_nonzero(~tf.math.is_finite(volume)),
    )
    finite = require(bad == 0, "the volume has {} value(s) that are NaN or infinite", bad)
    middle = _is_constant(volume[tf.shape(volume)[0] // 2][tf.newaxis])
    constant = tf.cond(tf.reduce_any(middle), lambda: _is_constant(volume), lambda: middle)
    names = tf.strings.reduce_join(
        tf.boolean_mask(tf.constant(accepted.modalities), constant), separator=", "
    )
    with tf.control_dependencies([finite]):
        varied = require(
            ~tf.reduce_any(constant),
            "the same value in every voxel of the channel(s) {}: there is no scan in them",
            names,
        )
    with tf.control_dependencies([varied]):
        return tf.identity(volume)


def _is_constant(volume: Any) -> Any:
    """Return whether each channel of (D, H, W, C) has a single value, (C,) bool."""
    return tf.reduce_min(volume, (0, 1, 2)) == tf.reduce_max(volume, (0, 1, 2))


def check_spacing(spacing: Any) -> Any:
    """Return a voxel size as (3,) float32 in mm, 1 where it is 0, or refuse it."""
    shape = require(
        tf.reduce_all(tf.shape(spacing)[-1:] == 3) & (tf.size(spacing) == 3),
        "spacing has the shape {}, expected (3,): the voxel size depth, height, width in mm",
        tf.shape(spacing),
    )
    with tf.control_dependencies([shape]):
        spacing = tf.reshape(spacing, [3])
    size = require(
        tf.reduce_all(tf.math.is_finite(spacing) & (spacing >= 0)),
        "spacing is {}, expected the voxel size depth, height, width in mm, or 0 for 1 mm",
        spacing,
    )
    with tf.control_dependencies([size]):
        spacing = tf.where(spacing == 0, 1.0, spacing)
    shortest, longest = VOXEL_MM
    possible = require(
        tf.reduce_all((spacing >= shortest) & (spacing <= longest))
        & (tf.reduce_max(spacing) > LONGEST_MM)
        & (tf.reduce_min(spacing) < SHORTEST_MM),
        "spacing is {}, which is impossible in a scan of a head: give the size of a voxel in mm",
        spacing,
    )
    with tf.control_dependencies([possible]):
        return tf.identity(spacing)


def voxel_warning(spacing: Any, accepted: Accepted) -> Any:
    """Return a sentence if a scan's voxels, (3,) float32 in mm, are unlike those of the training.

    It is a string, empty where they are alike or those of the training are not known.
    """
    if accepted.trained is None:
        return tf.constant("")
    resampled = accepted.spacing is not None
    least, most = voxel_limits(*accepted.trained, resampled=resampled)
    before, after = voxel_note(*accepted.trained, resampled=resampled).split("{}")
    sizes = tf.strings.reduce_join(tf.strings.as_string(spacing, shortest=True), separator="x")
    fits = tf.reduce_all((spacing >= least) & (spacing <= most))
    said = tf.strings.join(["The scan ", before, sizes, after, "."])
    return tf.where(fits, "", said)


def decode_volume(data: Any, shape: Any, dtype: Any, compression: Any, *, gzip: bool) -> Any:
    """Return the volume (D, H, W, C) float32 that bytes hold.

    Plain bytes must have exactly the length of the volume. Gzip is inflated only if its trailer,
    which tells how long the bytes were, fits; that the trailer was forged is found out afterwards.

    Args:
        data: the bytes, a string.
        shape: (4,) int64, checked already.
        dtype: a string, one of `DTYPES`.
        compression: a string, one of `COMPRESSIONS`.
        gzip: whether compressed bytes are taken.
    """
    allowed = COMPRESSIONS if gzip else COMPRESSIONS[:1]
    dtype = _one_of(dtype, tuple(DTYPES), "dtype")
    compression = _one_of(compression, allowed, "compression")
    kind = tf.argmax(tf.constant(list(DTYPES)) == dtype)
    expected = tf.reduce_prod(shape) * tf.constant(list(DTYPES.values()), tf.int64)[kind]
    length = tf.cast(tf.strings.length(data), tf.int64)
    message = "data_bytes has {} bytes, but shape {} of {} are {} bytes"

    def plain() -> Any:
        fits = require(length == expected, message, length, shape, dtype, expected)
        with tf.control_dependencies([fits]):
            return tf.identity(data)

    def inflated() -> Any:
        with tf.control_dependencies([_check_gzip(data, length, shape, expected)]):
            found = tf.io.decode_compressed(data, "GZIP")
        real = tf.cast(tf.strings.length(found), tf.int64)
        fits = require(
            real == expected, message.replace("has", "holds", 1), real, shape, dtype, expected
        )
        with tf.control_dependencies([fits]):
            return tf.identity(found)

    values = tf.cond(compression == "gzip", inflated, plain) if gzip else plain()

    def decoded(name: str) -> Any:
        return tf.cast(tf.io.decode_raw(values, tf.as_dtype(name), little_endian=True), tf.float32)

    branches = [lambda name=name: decoded(name) for name in DTYPES]
    return tf.reshape(tf.switch_case(tf.cast(kind, tf.int32), branches), shape)


def _check_gzip(data: Any, length: Any, shape: Any, expected: Any) -> Any:
    start = tf.strings.substr(data, 0, tf.minimum(tf.strings.length(data), 3))
    is_gzip = require(
        (length >= _SHORTEST_GZIP) & (start == _GZIP_START),
        "compression is gzip, but the {} bytes of data_bytes are no gzip",
        length,
    )
    with tf.control_dependencies([is_gzip]):
        tail = tf.strings.substr(data, tf.strings.length(data) - 4, 4)
    octets = tf.cast(tf.io.decode_raw(tail, tf.uint8), tf.int64)
    octets = tf.reshape(octets, [4])
    claimed = tf.reduce_sum(octets * tf.constant([1, 2**8, 2**16, 2**24], tf.int64))
    return tf.group(
        require(
            claimed == expected % 2**32,
            "the gzip in data_bytes says that it holds {} bytes, but shape {} takes {}",
            claimed,
            shape,
            expected,
        ),
        require(
            (length * _HIGHEST_RATIO >= expected)
            & (length <= expected + expected // 1024 + _LARGEST_GROWTH),
            "{} bytes of gzip cannot hold the {} bytes that shape {} takes",
            length,
            expected,
            shape,
        ),
    )


def _one_of(text: Any, allowed: tuple[str, ...], name: str) -> Any:
    choices = ", ".join(each or "nothing" for each in allowed)
    known = tf.reduce_any(tf.constant(allowed) == text)
    with tf.control_dependencies([require(known, f"{name} is {{}}, expected {choices}", text)]):
        return tf.identity(text)


def encode_values(values: Any) -> Any:
    """Return the values of a tensor as one string of little-endian bytes in C order."""
    # A TensorProto ends with the values' own bytes; TensorFlow has no operation that is the
    # inverse of decode_raw.
    proto = tf.io.serialize_tensor(values)
    length = tf.size(values) * values.dtype.size
    return tf.strings.substr(proto, tf.strings.length(proto) - length, length)


def require(condition: Any, sentence: str, *values: Any) -> Any:
    """Return an operation that fails with InvalidArgument unless `condition`, a scalar, holds.

    The message is `sentence`, which has a {} for each of `values`, tensors. Nothing waits for the
    operation by itself: what may only run afterwards goes under `tf.control_dependencies`.
    """
    first, *rest = sentence.split("{}")
    parts = [tf.constant(first)]
    for value, text in zip(values, rest, strict=True):
        # tf.strings.format would put strings into quotes.
        is_text = value.dtype == tf.string
        parts += [value if is_text else tf.strings.format("{}", value), tf.constant(text)]
    return tf.debugging.Assert(condition, [tf.strings.join(parts)])
