"""Refusing a volume that cannot be segmented, in the graph.

Refusing bad input in a graph, with a sentence.

Volumes from and into strings of bytes, in a graph.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import tensorflow as tf


def require(condition: Any, sentence: str, *values: Any) -> Any:
    """An operation that fails with InvalidArgument unless `condition`, a scalar, holds.

    `sentence` has a {} for each of `values`, tensors. Nothing waits for it by itself: what may
    only run afterwards goes under `tf.control_dependencies`.
    """
    first, *rest = sentence.split("{}")
    parts = [tf.constant(first)]
    for value, words in zip(values, rest, strict=True):
        # Not all with tf.strings.format, which puts strings into quotes.
        text = value.dtype == tf.string
        parts += [value if text else tf.strings.format("{}", value), tf.constant(words)]
    return tf.debugging.Assert(condition, [tf.strings.join(parts)])


DTYPES: Final = MappingProxyType({"float16": 2, "int16": 2, "float32": 4})
"""What a volume's values may be, little-endian, and how many bytes each has."""
COMPRESSIONS: Final = ("", "gzip")

_GZIP_START: Final = b"\x1f\x8b\x08"
_SHORTEST_GZIP: Final = 18
"""Bytes: header and trailer (RFC 1952)."""
_HIGHEST_RATIO: Final = 1032
"""Of deflate: 258 bytes from 2 bits (zlib.net/zlib_tech.html)."""
_LARGEST_GROWTH: Final = 1024
"""Stored blocks add 5 bytes for each 16 KiB or more; and a header with a file's name."""


def decode_volume(data: Any, shape: Any, dtype: Any, compression: Any, *, gzip: bool) -> Any:
    """Bytes -> (D, H, W, C) float32.

    shape: (4,) int64, checked already
    dtype: a key of `DTYPES`
    gzip:  whether compressed bytes are taken

    Nothing is allocated before the lengths fit: of plain bytes exactly, of gzip by its trailer,
    which says how long the bytes were. A trailer that was forged is found out only afterwards.
    """
    allowed = COMPRESSIONS if gzip else COMPRESSIONS[:1]
    dtype = _one_of(dtype, tuple(DTYPES), "dtype")
    compression = _one_of(compression, allowed, "compression")
    sizes = tf.constant(list(DTYPES.values()), tf.int64)
    size = sizes[tf.argmax(tf.constant(list(DTYPES)) == dtype)]
    expected = tf.reduce_prod(shape) * size
    length = tf.cast(tf.strings.length(data), tf.int64)
    said = "data_bytes has {} bytes, but shape {} of {} are {} bytes"

    def plain() -> Any:
        fits = require(length == expected, said, length, shape, dtype, expected)
        with tf.control_dependencies([fits]):
            return tf.identity(data)

    def inflated() -> Any:
        with tf.control_dependencies([_check_gzip(data, length, shape, expected)]):
            found = tf.io.decode_compressed(data, "GZIP")
        real = tf.cast(tf.strings.length(found), tf.int64)
        fits = require(
            real == expected, said.replace("has", "holds", 1), real, shape, dtype, expected
        )
        with tf.control_dependencies([fits]):
            return tf.identity(found)

    values = tf.cond(compression == "gzip", inflated, plain) if gzip else plain()
    kinds = [tf.float16, tf.int16, tf.float32]
    branches = [lambda kind=kind: _decode(values, kind) for kind in kinds]
    index = tf.argmax(tf.constant([kind.name for kind in kinds]) == dtype, output_type=tf.int32)
    return tf.reshape(tf.switch_case(index, branches), shape)


def encode_values(values: Any) -> Any:
    """A tensor -> its values as a string scalar of little-endian bytes in C order."""
    # A TensorProto ends with the values' own bytes; TensorFlow has no operation that is the
    # inverse of decode_raw.
    proto = tf.io.serialize_tensor(values)
    length = tf.size(values) * values.dtype.size
    return tf.strings.substr(proto, tf.strings.length(proto) - length, length)


def _one_of(word: Any, allowed: tuple[str, ...], name: str) -> Any:
    known = tf.reduce_any(tf.constant(allowed) == word)
    words = ", ".join(each or "nothing" for each in allowed)
    with tf.control_dependencies([require(known, f"{name} is {{}}, expected {words}", word)]):
        return tf.identity(word)


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
    said = tf.reduce_sum(octets * tf.constant([1, 2**8, 2**16, 2**24], tf.int64))
    return tf.group(
        require(
            said == expected % 2**32,
            "the gzip in data_bytes says that it holds {} bytes, but shape {} takes {}",
            said,
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


def _decode(data: Any, kind: Any) -> Any:
    return tf.cast(tf.io.decode_raw(data, kind, little_endian=True), tf.float32)


@dataclass(frozen=True)
class Accepted:
    """What a model takes.

    modalities: the channels in order
    voxels:     the largest D x H x W
    spacing:    (D, H, W) in mm that volumes are resampled to; None: as they are
    size:       height and width that pictures are resized to; None: as they are
    cubic:      whether volumes are resampled by cubic splines, else linearly
    volumes:    whether a single slice is refused
    """

    modalities: tuple[str, ...]
    voxels: int
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    cubic: bool = True
    volumes: bool = True

    @property
    def shape(self) -> str:
        """The shape in words."""
        channels = len(self.modalities)
        return f"(depth, height, width, {channels}), the channels {', '.join(self.modalities)}"


def check_shape(shape: Any, accepted: Accepted) -> Any:
    """A shape (n,) of any integer kind -> the same as (4,) int64, if a volume may have it."""
    given = tf.reshape(tf.cast(shape, tf.int64), [-1])
    # Four numbers in any case: what comes next may be computed before the assertion has failed.
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
    """(D, H, W, C) -> itself, if every channel holds a scan."""
    # A sum is NaN or infinite where a value is. It may be infinite without, too: then they are
    # looked at one by one. A channel that varies in the middle plane need not be looked at further.
    bad = tf.cond(
        tf.math.is_finite(tf.reduce_sum(volume)),
        lambda: tf.constant(0, tf.int64),
        lambda: tf.math.count_nonzero(~tf.math.is_finite(volume)),
    )
    finite = require(bad == 0, "the volume has {} value(s) that are NaN or infinite", bad)
    middle = _same(volume[tf.shape(volume)[0] // 2][tf.newaxis])
    same = tf.cond(tf.reduce_any(middle), lambda: _same(volume), lambda: middle)
    names = tf.strings.reduce_join(
        tf.boolean_mask(tf.constant(accepted.modalities), same), separator=", "
    )
    with tf.control_dependencies([finite]):
        constant = require(
            ~tf.reduce_any(same),
            "the same value in every voxel of the channel(s) {}: there is no scan in them",
            names,
        )
    with tf.control_dependencies([constant]):
        return tf.identity(volume)


def _same(volume: Any) -> Any:
    """Whether each channel of (D, H, W, C) has a single value, (C,) bool."""
    return tf.reduce_min(volume, (0, 1, 2)) == tf.reduce_max(volume, (0, 1, 2))


def check_spacing(spacing: Any) -> Any:
    """Voxel size -> (3,) float32 in mm, 1 where it was 0."""
    shape = require(
        tf.reduce_all(tf.shape(spacing)[-1:] == 3) & (tf.size(spacing) == 3),
        "spacing has the shape {}, expected (3,): the voxel size depth, height, width in mm",
        tf.shape(spacing),
    )
    with tf.control_dependencies([shape]):
        spacing = tf.reshape(spacing, [3])
    checks = [
        require(
            tf.reduce_all(tf.math.is_finite(spacing) & (spacing >= 0)),
            "spacing is {}, expected the voxel size depth, height, width in mm, or 0 for 1 mm",
            spacing,
        )
    ]
    spacing = tf.where(spacing == 0, 1.0, spacing)
    with tf.control_dependencies(checks):
        return tf.identity(spacing)
