"""`records.normalise.z_score` in a graph."""

from typing import Any

import tensorflow as tf

from kerasseg.records.normalise import EPSILON


def z_score(image: Any) -> Any:
    """(d, h, w, C) float32, each channel z-scored over its voxels that are not 0, which stay 0.

    As there: sums in float64, then float32. C is known.
    """
    return tf.stack([_channel(values) for values in tf.unstack(image, axis=-1)], axis=-1)


def _channel(values: Any) -> Any:
    signal = values != 0
    count = tf.cast(tf.maximum(tf.math.count_nonzero(signal), 1), tf.float64)
    mean = tf.reduce_sum(tf.cast(values, tf.float64)) / count
    shift = tf.cast(mean, tf.float32)
    centred = tf.where(signal, values - shift, 0)
    squares = tf.reduce_sum(tf.square(tf.cast(centred, tf.float64)))
    variance = squares / count - tf.square(mean - tf.cast(shift, tf.float64))
    deviation = tf.sqrt(tf.maximum(variance, 0))
    return centred / tf.cast(deviation + EPSILON, tf.float32)
