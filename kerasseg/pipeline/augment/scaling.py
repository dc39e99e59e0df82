"""The intensities times a factor."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Scaling


def draw_scaling(seed: tf.Tensor, channels: int, settings: Scaling) -> tf.Tensor:
    """A factor for each channel (C,)."""
    return of_channels(seed, 0, channels, settings.factor, settings.p_channel, 1.0)


@compiled
def scale_intensity(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C) times `factor` (C,); air (0) stays air by itself."""
    return image * factor
