"""Canonical labels -> what a model predicts."""

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.pipeline.compiled import compiled


@compiled
def target_masks(label: tf.Tensor, target: str) -> tf.Tensor:
    """(...) uint8 canonical ids -> (..., K) uint8, 1 where a voxel belongs to a channel.

    The K channels are those of `anatomy.TARGETS[target]`.
    """
    channels = anatomy.TARGETS[target].values()
    # A number per class and channel rather than a table: compiled, it needs no memory at all.
    masks = [
        tf.reduce_any([label == class_id for class_id in sorted(ids)], axis=0) for ids in channels
    ]
    return tf.cast(tf.stack(masks, axis=-1), tf.uint8)
