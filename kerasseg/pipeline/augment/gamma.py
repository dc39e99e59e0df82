"""Gamma, plain and inverted."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.augment.moments import extremes, moments
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Gamma


def draw_gamma(seed: tf.Tensor, channels: int, settings: Gamma) -> tf.Tensor:
    """An exponent for each channel (C,); 1 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.gamma, settings.p_channel, 1.0)


@compiled
def change_gamma(
    image: tf.Tensor, gamma: tf.Tensor, *, invert: bool = False, keep_moments: bool = True
) -> tf.Tensor:
    """Image (*spatial, C) float32, its tissue scaled to 0..1 between its extremes, to the power of
    `gamma` (C,), and scaled back. Air (0) stays air.

    `invert` does so to the negative image; with `keep_moments` mean and standard deviation of the
    tissue stay as they were (nnU-Net's "retain stats").
    """
    tissue = image != 0.0
    source = -image if invert else image
    low, high = extremes(source, tissue)
    width = tf.maximum(high - low, 1e-6)
    changed = _power(tf.clip_by_value((source - low) / width, 0.0, 1.0), gamma) * width + low
    changed = -changed if invert else changed
    if keep_moments:
        mean, sd = moments(image, tissue)
        new_mean, new_sd = moments(changed, tissue)
        changed = (changed - new_mean) / tf.maximum(new_sd, 1e-6) * sd + mean
    return tf.where(tissue & (gamma != 1.0), changed, image)


def _power(base: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """`base` of 0..1 to a positive exponent; XLA computes these two four times as fast as pow."""
    return tf.where(base > 0.0, tf.exp(exponent * tf.math.log(base)), 0.0)
