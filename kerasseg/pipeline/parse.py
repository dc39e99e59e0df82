"""One serialized record -> tensors, inside the graph."""

from typing import NamedTuple

import tensorflow as tf

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
    **{key: tf.io.FixedLenFeature([], tf.string) for key in _BYTES},
}


class Record(NamedTuple):
    """A record as `records/schema.py` describes it: a dense volume is never made of it.

    shape:         (3,) int32, D, H, W of the brain box
    mask:          (D, H, ceil(W / 8)) uint8, a bit per voxel
    row_start:     (D, H) int32, voxels stored before the row
    values:        (n + 1, C) float16, the stored voxels; the first is background
    labels:        (n + 1,) uint8
    foreground:    for each class, (N, 3) int32 coordinates of its voxels
    brain_voxels:  (D + H + W,) int32, stored voxels in each slice of each axis
    tumour_voxels: (D + H + W,) int32
    """

    shape: tf.Tensor
    mask: tf.Tensor
    row_start: tf.Tensor
    values: tf.Tensor
    labels: tf.Tensor
    foreground: tuple[tf.Tensor, ...]
    brain_voxels: tf.Tensor
    tumour_voxels: tf.Tensor


def parse_record(serialized: tf.Tensor, channels: int) -> Record:
    """The tensors of one record.

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

    bits = tf.io.decode_raw(features["mask"], tf.uint8)
    bytes_per_row = -(-shape[2] // 8)
    return Record(
        shape=shape,
        mask=tf.reshape(bits, tf.stack([shape[0], shape[1], bytes_per_row])),
        row_start=tf.reshape(integers("row_start"), shape[:2]),
        values=tf.reshape(tf.io.decode_raw(unpacked("values"), tf.float16), [-1, channels]),
        labels=tf.io.decode_raw(unpacked("labels"), tf.uint8),
        foreground=tuple(
            tf.cast(tf.reshape(tf.io.decode_raw(features[key], tf.int16), [-1, 3]), tf.int32)
            for key in FOREGROUND_KEYS
        ),
        brain_voxels=integers("brain_voxels"),
        tumour_voxels=integers("tumour_voxels"),
    )
