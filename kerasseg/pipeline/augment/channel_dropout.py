"""Whole modalities set to 0."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import uniform
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import ChannelDropout


def draw_channel_dropout(seed: tf.Tensor, channels: int, settings: ChannelDropout) -> tf.Tensor:
    """Which channels stay (C,) bool; one at least."""
    drawn = uniform(seed, 0, [channels], 0.0, 1.0)
    return (drawn >= settings.p_channel) | (drawn == tf.reduce_max(drawn))


@compiled
def drop_channels(image: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C), 0 in the channels that are not `kept` (C,)."""
    return tf.where(kept, image, 0.0)
