"""Rician noise."""

import tensorflow as tf

from kerasseg.pipeline.augment.drawing import normal, uniform
from kerasseg.pipeline.augment.gaussian_noise import Noise
from kerasseg.pipeline.augment.moments import extremes
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import RicianNoise


def draw_rician_noise(seed: tf.Tensor, settings: RicianNoise) -> Noise:
    """One standard deviation for all channels."""
    return Noise(uniform(seed, 0, [], *settings.sd), tf.random.fold_in(seed, 1))


def add_rician_noise(image: tf.Tensor, noise: Noise) -> tf.Tensor:
    """Image (*spatial, C) -> sqrt((signal + n1)^2 + n2^2), n1 and n2 Gaussian.

    The signal is the intensity above the lowest of the tissue, as magnitudes begin at 0 and
    z-scores do not (Gudbjartsson and Patz 1995). Air (0) stays air.
    """
    return _add(image, noise.sd, normal(noise.seed, [2, *image.shape]))


@compiled
def _add(image: tf.Tensor, sd: tf.Tensor, fields: tf.Tensor) -> tf.Tensor:
    tissue = image != 0.0
    lowest, _ = extremes(image, tissue)
    first, second = tf.unstack(fields)
    magnitude = tf.sqrt(tf.square(image - lowest + sd * first) + tf.square(sd * second))
    return tf.where(tissue & (sd > 0.0), magnitude + lowest, image)
