"""Sampled more coarsely, then brought back to the grid."""

import tensorflow as tf

from kerasseg.pipeline.augment.along_axes import along_axes
from kerasseg.pipeline.augment.drawing import of_channels
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import LowResolution

_CUBIC = -0.75
"""Of the cubic convolution kernel (Keys 1981), as in PyTorch's interpolation."""


def draw_low_resolution(seed: tf.Tensor, channels: int, settings: LowResolution) -> tf.Tensor:
    """A resolution for each channel (C,); 1 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.zoom, settings.p_channel, 1.0)


@compiled
def lower_resolution(image: tf.Tensor, zoom: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C), each channel sampled at round(zoom * n) places of every axis (the
    nearest voxel), and brought back by cubic convolution, as nnU-Net v2 does.

    zoom (C,) is above 0 and at most 1. Air (0) stays air.
    """
    coarse = along_axes(image, [_matrices(n, zoom) for n in image.shape[:-1]])
    return tf.where((image == 0.0) | (zoom == 1.0), image, coarse)


def _matrices(length: int, zoom: tf.Tensor) -> tf.Tensor:
    """(C, length, length): down to the coarse grid and up again."""
    count = tf.maximum(tf.round(zoom * length), 1.0)[:, tf.newaxis]
    ratio = count / length
    places = (tf.range(length, dtype=tf.float32) + 0.5) * ratio - 0.5
    first = tf.floor(places)
    matrix = tf.zeros([1, length, length])
    for tap in range(-1, 3):
        coarse = tf.clip_by_value(first + tap, 0.0, count - 1.0)
        nearest = tf.clip_by_value(tf.floor((coarse + 0.5) / ratio), 0.0, length - 1.0)
        weight = _kernel(places - (first + tap))
        matrix += tf.one_hot(tf.cast(nearest, tf.int32), length) * weight[..., tf.newaxis]
    return matrix


def _kernel(distance: tf.Tensor) -> tf.Tensor:
    """Keys's cubic convolution kernel."""
    x, a = tf.abs(distance), _CUBIC
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return tf.where(x <= 1.0, near, tf.where(x < 2.0, far, 0.0))
