"""Records in the graph: parsing one, and finding voxels among those that it stores."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import tensorflow as tf

from kerasseg.records.manifest import CaseRow
from kerasseg.records.schema import FOREGROUND_KEYS

_BYTES = (
    "mask",
    "row_start",
    "compression",
    "values",
    "labels",
    "brain_voxels",
    "tumour_voxels",
    *FOREGROUND_KEYS,
)
_FEATURES = {
    "shape": tf.io.FixedLenFeature([4], tf.int64),
    "spacing": tf.io.FixedLenFeature([3], tf.float32),
    **{key: tf.io.FixedLenFeature([], tf.string) for key in _BYTES},
}

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """Have XLA compile a function over whole patches, once for all data sets of a process.

    One fused loop replaces an array per operation: several times as fast on a CPU
    (benchmarks/notes.md). Tensors must have the same shapes each time; other arguments must be
    hashable and are compiled in. Random numbers are drawn outside: XLA would draw a scalar anew
    for every voxel.
    """
    return tf.function(function, jit_compile=True, autograph=False)


class Voxels(NamedTuple):
    """The stored voxels of a case (`records/schema.py`); no dense volume is ever made of them.

    shape:      (3,) int32, D, H, W of the brain box
    spacing:    (3,) float32, mm along D, H, W
    bits:       (b,) uint8, a bit per voxel of the box, rows of W padded to bytes
    byte_start: (b,) int32, voxels stored before each byte
    values:     (n, C) float16; the first is background
    labels:     (n,) uint8
    """

    shape: tf.Tensor
    spacing: tf.Tensor
    bits: tf.Tensor
    byte_start: tf.Tensor
    values: tf.Tensor
    labels: tf.Tensor


class Record(NamedTuple):
    """A record.

    foreground:    for each class, (N, 3) int32 coordinates of its voxels
    brain_voxels:  (D + H + W,) int32, stored voxels in each slice of each axis
    tumour_voxels: (D + H + W,) int32
    """

    voxels: Voxels
    foreground: tuple[tf.Tensor, ...]
    brain_voxels: tf.Tensor
    tumour_voxels: tf.Tensor


class TableSizes(NamedTuple):
    """Room for the largest of some records, so that the tensors of all have one shape.

    Otherwise a function would be compiled for every shape anew.
    """

    bytes: int
    rows: int

    @classmethod
    def of(cls, rows: Iterable[CaseRow]) -> "TableSizes":
        """Return the sizes that have room for any of these cases."""
        sizes = [(row.shape, row.stored_rows) for row in rows]
        return cls(
            max(d * h * (-(-w // 8)) for (d, h, w, _), _ in sizes),
            max(stored for _, stored in sizes),
        )


def parse_record(serialized: tf.Tensor, channels: int, sizes: TableSizes | None = None) -> Record:
    """Parse one record, and fill its voxels up with zeros to `sizes` if they are given.

    `channels` = C must be known beforehand: a training step traced for an unknown number of
    channels took more than twice as long (benchmarks/notes.md).
    """
    features = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.cast(features["shape"][:3], tf.int32)
    compressed = features["compression"] == "zlib"

    def unpacked(key: str) -> tf.Tensor:
        data = features[key]
        return tf.cond(compressed, lambda: tf.io.decode_compressed(data, "ZLIB"), lambda: data)

    def integers(key: str) -> tf.Tensor:
        return tf.io.decode_raw(features[key], tf.int32)

    depth, height, width = tf.unstack(shape)
    bits = tf.io.decode_raw(features["mask"], tf.uint8)
    by_row = tf.reshape(bits, tf.stack([depth, height, (width + 7) // 8]))
    counts = tf.cast(tf.raw_ops.PopulationCount(x=by_row), tf.int32)
    row_start = tf.reshape(integers("row_start"), tf.stack([depth, height, 1]))
    byte_start = tf.reshape(row_start + tf.cumsum(counts, axis=-1, exclusive=True), [-1])
    # There is no padded float16.
    room = None if sizes is None else sizes.rows * channels * tf.uint16.size
    values = tf.io.decode_raw(unpacked("values"), tf.uint16, fixed_length=room)
    rows = None if sizes is None else sizes.rows
    record = Record(
        voxels=Voxels(
            shape=shape,
            spacing=features["spacing"],
            bits=bits,
            byte_start=byte_start,
            values=tf.bitcast(tf.reshape(values, [-1, channels]), tf.float16),
            labels=tf.io.decode_raw(unpacked("labels"), tf.uint8, fixed_length=rows),
        ),
        foreground=tuple(
            tf.cast(tf.reshape(tf.io.decode_raw(features[key], tf.int16), [-1, 3]), tf.int32)
            for key in FOREGROUND_KEYS
        ),
        brain_voxels=integers("brain_voxels"),
        tumour_voxels=integers("tumour_voxels"),
    )
    return record if sizes is None else filled(record, sizes)


def filled(record: Record, sizes: TableSizes) -> Record:
    """Return the record with its voxels filled up with zeros to `sizes`."""

    def fill(part: tf.Tensor, size: int) -> tf.Tensor:
        if part.shape[0] == size:
            return part
        pads = [[0, size - tf.shape(part)[0]], *[[0, 0]] * (len(part.shape) - 1)]
        return tf.ensure_shape(tf.pad(part, pads), [size, *part.shape[1:]])

    voxels = record.voxels
    return record._replace(
        voxels=Voxels(
            shape=tf.ensure_shape(voxels.shape, [3]),
            spacing=tf.ensure_shape(voxels.spacing, [3]),
            bits=fill(voxels.bits, sizes.bytes),
            byte_start=fill(voxels.byte_start, sizes.bytes),
            values=fill(voxels.values, sizes.rows),
            labels=fill(voxels.labels, sizes.rows),
        )
    )


def voxel_rows(voxels: Voxels, d: tf.Tensor, h: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """Return the rows of `voxels.values` and `voxels.labels` for voxels anywhere, int32.

    The three coordinates are int32 of shapes that broadcast. Row 0, background, stands for every
    voxel that is not stored or lies outside the volume.

    A rank in a bit vector (Jacobson 1989): the voxels stored before a byte, and the bits set
    within it.
    """
    depth, height, width = tf.unstack(voxels.shape)
    inside = (d >= 0) & (d < depth) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
    bytes_per_row = (width + 7) // 8
    place = (d * height + h) * bytes_per_row + tf.bitwise.right_shift(w, 3)
    place = tf.where(inside, place, 0)
    bits = tf.cast(tf.gather(voxels.bits, place), tf.int32)
    bit = tf.bitwise.left_shift(1, tf.bitwise.bitwise_and(w, 7))
    stored = inside & (tf.bitwise.bitwise_and(bits, bit) > 0)
    before = tf.raw_ops.PopulationCount(x=tf.bitwise.bitwise_and(bits, bit - 1))
    row = tf.gather(voxels.byte_start, place) + tf.cast(before, tf.int32) + 1
    return tf.where(stored, row, 0)
