"""Distances from the mean times a factor."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.augment.moments import extremes, moments
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Contrast


def draw_contrast(seed: tf.Tensor, channels: int, settings: Contrast) -> tf.Tensor:
    """A factor for each channel (C,)."""
    return of_channels(seed, 0, channels, settings.factor, settings.p_channel, 1.0)


@compiled
def change_contrast(image: tf.Tensor, factor: tf.Tensor, *, keep_range: bool = True) -> tf.Tensor:
    """Image (*spatial, C): mean + factor (C,) * (image - mean), of its tissue. Air (0) stays air.

    `keep_range` clips the result to the extremes from before.
    """
    tissue = image != 0.0
    mean, _ = moments(image, tissue)
    changed = mean + factor * (image - mean)
    if keep_range:
        low, high = extremes(image, tissue)
        changed = tf.clip_by_value(changed, low, high)
    return tf.where(tissue & (factor != 1.0), changed, image)
