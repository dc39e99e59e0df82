"""Boxes of the image set to 0."""

from typing import NamedTuple

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import uniform
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import CoarseDropout


class Boxes(NamedTuple):
    """First voxels and ends (N, n) int32."""

    first: tf.Tensor
    end: tf.Tensor


def draw_coarse_dropout(seed: tf.Tensor, size: tuple[int, ...], settings: CoarseDropout) -> Boxes:
    """Boxes within patches of `size` (n,) voxels."""
    extent = tf.constant(size, tf.float32)
    shape = [settings.boxes, len(size)]
    length = tf.maximum(tf.round(uniform(seed, 0, shape, *settings.size) * extent), 1.0)
    first = tf.floor(uniform(seed, 1, shape, 0.0, 1.0) * (extent - length + 1.0))
    return Boxes(tf.cast(first, tf.int32), tf.cast(first + length, tf.int32))


@compiled
def drop_boxes(image: tf.Tensor, boxes: Boxes) -> tf.Tensor:
    """Image (*spatial, C), 0 inside of the boxes."""
    rank = len(image.shape) - 1
    inside = tf.constant(False)
    for first, end in zip(tf.unstack(boxes.first), tf.unstack(boxes.end), strict=True):
        box = tf.constant(True)
        for axis in range(rank):
            line = tf.range(image.shape[axis])
            within = (line >= first[axis]) & (line < end[axis])
            box &= tf.reshape(within, [-1 if a == axis else 1 for a in range(rank)])
        inside |= box
    return tf.where(inside[..., tf.newaxis], 0.0, image)
