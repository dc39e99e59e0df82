"""Gamma, contrast, brightness and noise of z-scored images. Air (exactly 0) stays air."""

from typing import NamedTuple

import tensorflow as tf


class Intensity(NamedTuple):
    """What is done to the intensities of one patch.

    gamma:      (C,) exponent of the intensities, scaled to 0..1 between their extremes
    contrast:   (C,) factor
    brightness: (C,) added, in standard deviations
    noise:      () standard deviation of Gaussian noise
    seed:       (2,) of the noise
    """

    gamma: tf.Tensor
    contrast: tf.Tensor
    brightness: tf.Tensor
    noise: tf.Tensor
    seed: tf.Tensor


class IntensityRanges(NamedTuple):
    """How far each of them goes; 0 leaves it out."""

    log_gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    noise_share: float = 0.0


def draw_intensity(seed: tf.Tensor, channels: int, ranges: IntensityRanges) -> Intensity:
    """Each modality gets its own gamma, contrast and brightness; noise is of `noise_share` of the
    patches and then up to `noise`."""

    def uniform(stream: int, size: list[int]) -> tf.Tensor:
        return tf.random.stateless_uniform(size, tf.random.fold_in(seed, stream), -1.0, 1.0)

    strength, chance = tf.unstack((uniform(3, [2]) + 1.0) / 2.0)
    return Intensity(
        gamma=tf.exp(uniform(0, [channels]) * ranges.log_gamma),
        contrast=1.0 + uniform(1, [channels]) * ranges.contrast,
        brightness=uniform(2, [channels]) * ranges.brightness,
        noise=tf.where(chance < ranges.noise_share, strength * ranges.noise, 0.0),
        seed=tf.random.fold_in(seed, 4),
    )


def change_intensity(image: tf.Tensor, intensity: Intensity) -> tf.Tensor:
    """Image (*spatial, C) float32 -> the same with other intensities.

    The channels of several slices (2.5-D), (*spatial, C * n) slice by slice, get those of their
    modality.
    """
    slices = image.shape[-1] // intensity.gamma.shape[0]
    gamma, contrast, brightness = (tf.tile(v, [slices]) for v in intensity[:3])
    spatial = list(range(len(image.shape) - 1))
    low = tf.reduce_min(image, spatial)
    span = tf.maximum(tf.reduce_max(image, spatial) - low, 1e-6)
    changed = tf.pow(tf.clip_by_value((image - low) / span, 0.0, 1.0), gamma) * span + low
    changed = changed * contrast + brightness
    changed += tf.random.stateless_normal(tf.shape(image), intensity.seed) * intensity.noise
    return tf.where(image == 0.0, 0.0, changed)
