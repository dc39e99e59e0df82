"""Finding voxels among those that a record stores."""

import tensorflow as tf

from kerasseg.pipeline.parse import Voxels


def voxel_rows(voxels: Voxels, d: tf.Tensor, h: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """Rows of `voxels.values` and `voxels.labels` for voxels anywhere, int32.

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
