"""`datasets.resize` and `datasets.resample` in a graph: a volume onto the run's grid, and back.

The axes stay, so each is a matrix (new length, old length) of weights, float64, as Pillow and SciPy
compute in it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_EDGE = 12
"""Voxels by which SciPy lengthens an axis before it finds the coefficients of a spline."""


def resized_pictures(volume: Any, size: tuple[int, int]) -> Any:
    """`resize_case`: (D, H, W, C) float32 -> (D, *size, C)."""
    lengths = tf.shape(volume)
    pairs = ((lengths[1], size[0]), (lengths[2], size[1]))
    smooth = [None, *(filter_matrix(old, new, _triangle, 1.0) for old, new in pairs)]
    cover = [None, *(filter_matrix(old, new, _box, 0.5) for old, new in pairs)]
    return _channel_by_channel(
        volume,
        lambda values: along(values, smooth, tf.float32),
        lambda signal: along(signal, cover, tf.float32),
    )


def resampled_volume(volume: Any, scale: Any, shape: Any, *, cubic: bool) -> Any:
    """`resample_image`: (D, H, W, C) float32 -> (*shape, C).

    scale: voxel size of the new grid over that of the old one, (3,) float64
    """
    lengths = tf.shape(volume)[:3]
    shift = (scale - 1) / 2
    linear = [spline_matrix(lengths[a], shape[a], scale[a], shift[a], 1) for a in range(3)]
    chosen = linear
    if cubic:  # a spline needs two voxels along every axis
        enough = tf.reduce_min(lengths) >= 2
        chosen = [
            tf.cond(
                enough,
                lambda a=a: spline_matrix(lengths[a], shape[a], scale[a], shift[a], 3),
                lambda a=a: linear[a],
            )
            for a in range(3)
        ]
    return _channel_by_channel(
        volume, lambda values: along(values, chosen), lambda signal: along(signal, linear)
    )


def restored(probabilities: Any, scale: Any, shape: Any) -> Any:
    """`resample_probabilities`: (D, H, W, K) of the run's grid -> (*shape, K) of the scan's.

    scale: voxel size of the run's grid over that of the scan's, (3,) float64
    """
    lengths = tf.shape(probabilities)[:3]
    back, shift = 1 / scale, (1 / scale - 1) / 2
    matrices = [spline_matrix(lengths[a], shape[a], back[a], shift[a], 1) for a in range(3)]
    channels = tf.unstack(probabilities, axis=-1)
    return tf.stack([along(channel, matrices) for channel in channels], axis=-1)


def along(values: Any, matrices: Sequence[Any], between: Any = tf.float64) -> Any:
    """A matrix on each axis of (D, H, W), the last axis first; None leaves one as it is.

    between: what the values are rounded to after each axis; SciPy rounds at the end only
    """
    result = values
    for axis, matrix in reversed(list(enumerate(matrices))):
        if matrix is not None:
            moved = tf.tensordot(matrix, tf.cast(result, tf.float64), [[1], [axis]])
            order = [*range(1, axis + 1), 0, *range(axis + 1, 3)]
            result = tf.cast(tf.transpose(moved, order), between)
    return tf.cast(result, tf.float32)


def filter_matrix(old: Any, new: int, kernel: Callable[[Any], Any], reach: float) -> Any:
    """Pillow's resampling of an axis (libImaging/Resample.c, precompute_coeffs)."""
    length = tf.cast(old, tf.float64)
    # Not simply `new`: by a constant the optimiser divides by multiplying with its inverse.
    scale = length / tf.cast(tf.where(old > 0, new, old), tf.float64)
    wide = tf.maximum(scale, 1.0)
    half = tf.range(new, dtype=tf.float64)[:, tf.newaxis] + 0.5
    centre = _as_it_is(half * scale)
    first = tf.floor(tf.maximum(_as_it_is(centre - reach * wide) + 0.5, 0.0))
    last = tf.floor(tf.minimum(_as_it_is(centre + reach * wide) + 0.5, length))
    places = tf.cast(tf.range(old), tf.float64)[tf.newaxis]
    weights = kernel(_as_it_is(_as_it_is(places - centre) + 0.5) * (1.0 / wide))
    weights = tf.where((places >= first) & (places < last), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def spline_matrix(old: Any, new: Any, scale: Any, shift: Any, order: int) -> Any:
    """Values at `scale` * index + `shift` of an axis, whose ends go on, by splines of `order` 1 or
    3 (scipy.ndimage.affine_transform, mode nearest)."""
    places = tf.cast(tf.range(new), tf.float64) * scale + shift
    if order == 1:
        places = tf.clip_by_value(places, 0.0, tf.cast(old - 1, tf.float64))[:, tf.newaxis]
        distance = tf.abs(tf.cast(tf.range(old), tf.float64)[tf.newaxis] - places)
        return tf.maximum(1.0 - distance, 0.0)
    long = old + 2 * _EDGE
    last = tf.cast(long - 1, tf.float64)
    places = tf.clip_by_value(places + _EDGE, 0.0, last)[:, tf.newaxis]
    distance = tf.abs(tf.cast(tf.range(long), tf.float64)[tf.newaxis] - places)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = tf.maximum(2 - distance, 0.0) ** 3 / 6
    basis = tf.where(distance < 1, near, far)
    # What the coefficients are of: the axis with its ends repeated.
    source = tf.clip_by_value(tf.range(long) - _EDGE, 0, old - 1)
    values = tf.one_hot(source, old, dtype=tf.float64)
    sixth, third = tf.fill([long - 1], tf.constant(1 / 6, tf.float64)), [1 / 3]
    # Above, on and below the diagonal; mirrored at both ends. The last of above and the first of
    # below are not used.
    above, below = tf.concat([third, sixth], 0), tf.concat([sixth, third], 0)
    matrix = tf.stack([above, tf.fill([long], tf.constant(2 / 3, tf.float64)), below])
    coefficients = tf.linalg.tridiagonal_solve(matrix, values, diagonals_format="compact")
    return basis @ coefficients


def _channel_by_channel(
    volume: Any, values_of: Callable[[Any], Any], cover_of: Callable[[Any], Any]
) -> Any:
    """Air, exactly 0 before, is exactly 0 where it was most of what a voxel covers."""
    result = []
    for channel in tf.unstack(volume, axis=-1):
        covered = cover_of(tf.cast(channel != 0, tf.float32))
        result.append(tf.where(covered < 0.5, 0.0, values_of(channel)))
    return tf.stack(result, axis=-1)


def _as_it_is(rows: Any) -> Any:
    """Rows that TensorFlow's optimiser does not compute in another order: a last bit decides
    whether a pixel at the edge of a box belongs to it."""
    return tf.gather(rows, tf.range(tf.shape(rows)[0]))


def _triangle(x: Any) -> Any:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _box(x: Any) -> Any:
    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)
