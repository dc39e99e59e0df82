"""Canonical labels -> what a model predicts."""

import tensorflow as tf

from kerasseg import anatomy


def subregions(label: tf.Tensor) -> tf.Tensor:
    """(...) uint8 canonical ids -> (..., 3) uint8 with one channel each for NCR, ED and ET."""
    ids = tf.constant(list(anatomy.SUBREGIONS.values()), tf.uint8)
    return tf.cast(label[..., tf.newaxis] == ids, tf.uint8)
