"""Gaussian noise."""

from typing import NamedTuple

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import normal, uniform
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import GaussianNoise


class Noise(NamedTuple):
    """Standard deviation (), and the seed (2,) of the field."""

    sd: tf.Tensor
    seed: tf.Tensor


def draw_gaussian_noise(seed: tf.Tensor, settings: GaussianNoise) -> Noise:
    """One standard deviation for all channels."""
    variance = uniform(seed, 0, [], *settings.variance)
    return Noise(tf.sqrt(variance), tf.random.fold_in(seed, 1))


def add_gaussian_noise(image: tf.Tensor, noise: Noise) -> tf.Tensor:
    """Image (*spatial, C) plus noise. Air (0) stays air."""
    return _add(image, noise.sd, normal(noise.seed, image.shape))


@compiled
def _add(image: tf.Tensor, sd: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
    return tf.where(image == 0.0, image, image + sd * field)
