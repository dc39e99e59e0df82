"""Canonical labels -> what a model predicts."""

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.pipeline.take_rows import take_rows


def target_masks(label: tf.Tensor, target: str) -> tf.Tensor:
    """(...) uint8 canonical ids -> (..., K) uint8, 1 where a voxel belongs to a channel.

    The K channels are those of `anatomy.TARGETS[target]`.
    """
    channels = anatomy.TARGETS[target].values()
    table = [[int(class_id in ids) for ids in channels] for class_id in anatomy.LABELS]
    return take_rows(tf.constant(table, tf.uint8), tf.cast(label, tf.int32))
