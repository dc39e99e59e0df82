"""Faint copies of the image, as periodic motion makes them."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasseg.pipeline.augment.along_axes import along_axes
from kerasseg.pipeline.augment.drawing import uniform
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import Ghosting


class Ghosts(NamedTuple):
    """Which axis () int32 of those allowed, how many copies (), and how strong ()."""

    axis: tf.Tensor
    count: tf.Tensor
    intensity: tf.Tensor


def draw_ghosting(seed: tf.Tensor, axes: int, settings: Ghosting) -> Ghosts:
    """One of `axes` axes, for all channels."""
    axis = tf.cast(uniform(seed, 0, [], 0.0, float(axes)), tf.int32)
    count = tf.floor(uniform(seed, 1, [], 2.0, settings.ghosts + 1.0))
    return Ghosts(
        tf.minimum(axis, axes - 1),
        tf.minimum(count, float(settings.ghosts)),
        uniform(seed, 2, [], *settings.intensity),
    )


@compiled
def add_ghosts(image: tf.Tensor, axes: tuple[int, ...], ghosts: Ghosts) -> tf.Tensor:
    """Image (*spatial, C): along the drawn one of the spatial `axes`, every count-th line of
    k-space, but those of the lowest frequencies, times 1 - intensity.

    Copies stand n / count voxels apart. Air (0) stays air, so those outside the head are not seen.
    """
    ghosted = tf.switch_case(
        ghosts.axis,
        [lambda axis=axis: _along(image, axis, ghosts) for axis in axes],
    )
    return tf.where((image == 0.0) | (ghosts.intensity == 0.0), image, ghosted)


def _along(image: tf.Tensor, axis: int, ghosts: Ghosts) -> tf.Tensor:
    length, channels = image.shape[axis], image.shape[-1]
    frequency = np.abs(np.fft.fftfreq(length, 1.0 / length)).astype(np.float32)
    chosen = (tf.math.floormod(frequency, ghosts.count) == 0.0) & (frequency > _KEPT * length / 2)
    gain = tf.where(chosen, 1.0 - ghosts.intensity, 1.0)
    # The inverse transform of a diagonal in k-space: a circulant matrix.
    row = tf.math.real(tf.signal.ifft(tf.cast(gain, tf.complex64)))
    places = np.arange(length)
    matrix = tf.gather(row, (places[:, np.newaxis] - places) % length)
    matrices: list[tf.Tensor | None] = [None] * (len(image.shape) - 1)
    matrices[axis] = tf.tile(matrix[tf.newaxis], [channels, 1, 1])
    return along_axes(image, matrices)


_KEPT = 0.05
"""Share of the lowest frequencies that stay: without the mean the image would lose its contrast."""
