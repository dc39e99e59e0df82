"""`records.normalise.z_score` in a graph."""

from typing import Any

import tensorflow as tf

from kerasseg.records.normalise import EPSILON


def z_score(image: Any) -> Any:
    """(d, h, w, C) float32, each channel z-scored over its voxels that are not 0, which stay 0.

    As there: sums in float64, then float32. C is known.
    """
    depth, height, width, channels = tf.unstack(tf.shape(image))
    # In rows that hold all channels, and each channel's value repeated along a row: taking the
    # channels apart and together again takes as long as the rest.
    rows = tf.reshape(image, [depth * height, width * channels])

    def total(values: Any) -> Any:
        along = tf.reshape(tf.reduce_sum(values, axis=0), [width, channels])
        return tf.reduce_sum(along, axis=0)

    def repeated(values: Any) -> Any:
        return tf.tile(tf.cast(values, tf.float32), [width])

    signal = rows != 0
    count = tf.cast(tf.maximum(total(tf.cast(signal, tf.int32)), 1), tf.float64)
    mean = total(tf.cast(rows, tf.float64)) / count
    shift = tf.cast(mean, tf.float32)
    centred = tf.where(signal, rows - repeated(shift), 0)
    squares = total(tf.square(tf.cast(centred, tf.float64)))
    variance = squares / count - tf.square(mean - tf.cast(shift, tf.float64))
    deviation = tf.sqrt(tf.maximum(variance, 0))
    return tf.reshape(centred / repeated(deviation + EPSILON), tf.shape(image))
