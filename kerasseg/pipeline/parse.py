"""One serialized record -> tensors, inside the graph."""

import tensorflow as tf

from kerasseg.records.schema import FOREGROUND_KEYS

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.string),
    "shape": tf.io.FixedLenFeature([4], tf.int64),
    **{key: tf.io.FixedLenFeature([], tf.string) for key in FOREGROUND_KEYS},
}


def parse_record(
    serialized: tf.Tensor, channels: int
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Image (D, H, W, C) float16, label (D, H, W) uint8, and per class its voxels (N, 3) int32.

    `channels` = C must be known beforehand: a training step traced for an unknown number of
    channels took more than twice as long (benchmarks/notes.md).
    """
    features = tf.io.parse_single_example(serialized, _FEATURES)
    shape = features["shape"]
    voxels = tf.io.decode_raw(features["image"], tf.float16)
    image = tf.ensure_shape(tf.reshape(voxels, shape), [None, None, None, channels])
    label = tf.reshape(tf.io.decode_raw(features["label"], tf.uint8), shape[:3])
    foreground = [
        tf.cast(tf.reshape(tf.io.decode_raw(features[key], tf.int16), [-1, 3]), tf.int32)
        for key in FOREGROUND_KEYS
    ]
    return image, label, foreground
