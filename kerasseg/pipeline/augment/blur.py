"""Convolution with a Gaussian."""

import tensorflow as tf

from kerasseg.pipeline.augment.along_axes import along_axes
from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Blur

_TRUNCATE = 4.0
"""Standard deviations at which the kernel ends, as in scipy."""


def draw_blur(seed: tf.Tensor, channels: int, settings: Blur) -> tf.Tensor:
    """A standard deviation in voxels for each channel (C,); 0 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.sigma, settings.p_channel, 0.0)


@compiled
def blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C), each channel convolved with a Gaussian of `sigma` (C,) voxels.

    Beyond an edge stands the mirrored image, the edge doubled (scipy's "reflect"); sigma must be
    less than a quarter of every axis. Air (0) stays air.
    """
    blurred = along_axes(image, [_matrices(n, sigma) for n in image.shape[:-1]])
    return tf.where((image == 0.0) | (sigma == 0.0), image, blurred)


def _matrices(length: int, sigma: tf.Tensor) -> tf.Tensor:
    """(C, length, length): row i is the kernel around voxel i."""
    places = tf.range(length, dtype=tf.float32)
    sigma = sigma[:, tf.newaxis, tf.newaxis]
    reach = tf.round(_TRUNCATE * sigma)

    def kernel(distance: tf.Tensor) -> tf.Tensor:
        values = tf.exp(-tf.square(distance / tf.maximum(sigma, 1e-3)) / 2.0)
        return tf.where(tf.abs(distance) <= reach, values, 0.0)

    rows, columns = places[:, tf.newaxis], places
    inside = kernel(rows - columns)
    # What the kernel takes from beyond an edge falls on the mirrored voxel.
    weights = inside + kernel(rows + columns + 1.0) + kernel(2.0 * length - 1.0 - rows - columns)
    return weights / tf.reduce_sum(weights, -1, keepdims=True)
