"""A number added to the intensities."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Brightness


def draw_brightness(seed: tf.Tensor, channels: int, settings: Brightness) -> tf.Tensor:
    """What is added to each channel (C,)."""
    span = (-settings.add, settings.add)
    return of_channels(seed, 0, channels, span, settings.p_channel, 0.0)


@compiled
def add_brightness(image: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C) plus `added` (C,). Air (0) stays air."""
    return tf.where(image == 0.0, image, image + added)
