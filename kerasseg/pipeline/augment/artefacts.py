"""Artefacts of a scan: blur, low resolution, bias field, ghosts.

Most are linear maps along the axes of a patch, each a small matrix: on a CPU a matrix product takes
a fraction of the time of a convolution's shifted sums, and edges are part of the matrix.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasseg.config.augment import BiasField, Blur, Ghosting, LowResolution
from kerasseg.pipeline.augment.drawing import of_channels, uniform
from kerasseg.pipeline.augment.intensity import extremes
from kerasseg.pipeline.records import compiled


def along_axes(image: tf.Tensor, matrices: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Multiply each axis of an image (*spatial, C) by its matrices (C, n, n), one per channel.

    None in the place of a matrix leaves the axis as it is.

    result[..., i, ..., c] = sum_j matrices[axis][c, i, j] image[..., j, ..., c]
    """
    rank = len(image.shape) - 1
    sizes = tf.shape(image)
    x = tf.transpose(image, [rank, *range(rank)])
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        before = tf.reduce_prod(sizes[:axis])
        after = tf.reduce_prod(sizes[axis + 1 : rank])
        length, channels = sizes[axis], sizes[rank]
        if axis == rank - 1:
            x = tf.reshape(x, [channels, before, length])
            x = tf.matmul(x, matrix, transpose_b=True)
        else:
            x = tf.reshape(x, [channels, before, length, after])
            x = tf.matmul(matrix[:, tf.newaxis], x)
        x = tf.reshape(x, tf.concat([[channels], sizes[:rank]], 0))
    return tf.ensure_shape(tf.transpose(x, [*range(1, rank + 1), 0]), image.shape)


def draw_bias_field(seed: tf.Tensor, dimensions: int, settings: BiasField) -> tf.Tensor:
    """Draw a coefficient for each term of the polynomial (T,).

    They are drawn evenly and scaled, so that the largest absolute value of the polynomial is drawn
    evenly between 0 and the strength.
    """
    terms = tf.constant(_terms(dimensions, settings.order))
    coefficients = uniform(seed, 0, [terms.shape[1]], -1.0, 1.0)
    largest = tf.reduce_max(tf.abs(tf.linalg.matvec(terms, coefficients)))
    # Between two places of the grid the polynomial may be a little larger.
    between = 1.0 + dimensions * (settings.order / (_PLACES - 1)) ** 2
    return coefficients * uniform(seed, 1, [], 0.0, settings.strength) / (largest * between)


_PLACES = 17
"""Places along each axis at which the largest value of the polynomial is looked for."""


@lru_cache(maxsize=4)
def _terms(dimensions: int, order: int) -> np.ndarray:
    """Return every term (T,) of the polynomial at all places (P, T) float32."""
    line = np.linspace(-1.0, 1.0, _PLACES)
    grid = np.stack(np.meshgrid(*[line] * dimensions), axis=-1).reshape(-1, dimensions)
    exponents = _exponents(dimensions, order)
    terms = [np.prod(grid**powers, axis=-1) for powers in exponents]
    return np.stack(terms, axis=-1).astype(np.float32)


@compiled
def multiply_bias_field(image: tf.Tensor, coefficients: tf.Tensor, order: int) -> tf.Tensor:
    """Multiply an image (*spatial, C) by exp(polynomial), the same for all channels.

    The polynomial is of the coordinates, from -1 to 1 along each axis, with all terms of a degree
    from 1 to `order` (Van Leemput et al. 1999). Air (0) stays air by itself. Intensities are taken
    as distances from the lowest of z-scores, which a coil multiplies; their mean moves.
    """
    *sizes, _ = image.shape
    exponents = _exponents(len(sizes), order)
    field = tf.zeros([])
    # Horner's scheme would save little: the terms are few, and each is an outer product.
    for coefficient, powers in zip(tf.unstack(coefficients), exponents, strict=True):
        term = coefficient
        for axis, (size, power) in enumerate(zip(sizes, powers, strict=True)):
            shape = [1] * len(sizes)
            shape[axis] = size
            line = np.linspace(-1.0, 1.0, size, dtype=np.float32) ** power
            term *= tf.constant(line.reshape(shape))
        field += term
    lowest, _ = extremes(image, image != 0.0)
    changed = (image - lowest) * tf.exp(field)[..., tf.newaxis] + lowest
    return tf.where(image == 0.0, image, changed)


def _exponents(dimensions: int, order: int) -> list[tuple[int, ...]]:
    """Return the exponents of every term of degree 1 to `order`."""
    every = itertools.product(range(order + 1), repeat=dimensions)
    return [powers for powers in every if 1 <= sum(powers) <= order]


_TRUNCATE = 4.0
"""Standard deviations at which the kernel ends, as in scipy."""


def draw_blur(seed: tf.Tensor, channels: int, settings: Blur) -> tf.Tensor:
    """Draw a standard deviation in voxels for each channel (C,); 0 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.sigma, settings.p_channel, 0.0)


@compiled
def blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Convolve each channel of an image (*spatial, C) with a Gaussian of `sigma` (C,) voxels.

    Beyond an edge stands the mirrored image, the edge doubled (scipy's "reflect"); sigma must be
    less than a quarter of every axis. Air (0) stays air.
    """
    blurred = along_axes(image, [_blur_matrices(n, sigma) for n in image.shape[:-1]])
    return tf.where((image == 0.0) | (sigma == 0.0), image, blurred)


def _blur_matrices(length: int, sigma: tf.Tensor) -> tf.Tensor:
    """Return matrices (C, length, length) whose row i is the kernel around voxel i."""
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


class Ghosts(NamedTuple):
    """The index () int32 of the axis, the number of copies () and their strength ()."""

    axis: tf.Tensor
    count: tf.Tensor
    intensity: tf.Tensor


def draw_ghosting(seed: tf.Tensor, axes: int, settings: Ghosting) -> Ghosts:
    """Draw ghosts along one of `axes` axes, the same for all channels."""
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

_CUBIC = -0.75
"""The parameter of the cubic convolution kernel (Keys 1981), as in PyTorch's interpolation."""


def draw_low_resolution(seed: tf.Tensor, channels: int, settings: LowResolution) -> tf.Tensor:
    """Draw a resolution for each channel (C,); 1 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.zoom, settings.p_channel, 1.0)


@compiled
def lower_resolution(image: tf.Tensor, zoom: tf.Tensor) -> tf.Tensor:
    """Image (*spatial, C), each channel sampled at round(zoom * n) places of every axis (the
    nearest voxel), and brought back by cubic convolution, as nnU-Net v2 does.

    zoom (C,) is above 0 and at most 1. Air (0) stays air.
    """
    coarse = along_axes(image, [_zoom_matrices(n, zoom) for n in image.shape[:-1]])
    return tf.where((image == 0.0) | (zoom == 1.0), image, coarse)


def _zoom_matrices(length: int, zoom: tf.Tensor) -> tf.Tensor:
    """Return matrices (C, length, length) that go down to the coarse grid and up again."""
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
    """Return Keys's cubic convolution kernel at a distance in voxels."""
    x, a = tf.abs(distance), _CUBIC
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return tf.where(x <= 1.0, near, tf.where(x < 2.0, far, 0.0))
