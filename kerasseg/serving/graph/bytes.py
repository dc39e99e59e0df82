"""Volumes from and into strings of bytes, in a graph."""

from types import MappingProxyType
from typing import Any, Final

import tensorflow as tf

from kerasseg.serving.graph.require import require

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
