"""Geometry: rotation, scaling, shift and elastic deformation in one resampling; quarter turns."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasseg.config.augment import Spatial
from kerasseg.pipeline.augment.drawing import happens, uniform


def draw_quarters(seed: tf.Tensor) -> tf.Tensor:
    """Draw a number of quarter turns () int32, 1 to 3."""
    return tf.random.stateless_uniform([], seed, 1, 4, tf.int32)


def rotate90(
    image: tf.Tensor, label: tf.Tensor, axes: tuple[int, int], quarters: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (*spatial, C) and label (*spatial) turned from the first of two spatial `axes` of the
    same size to the second, as numpy's rot90 does."""

    def turned(array: tf.Tensor) -> tf.Tensor:
        order = list(range(len(array.shape)))
        order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
        return tf.switch_case(
            tf.math.floormod(quarters, 4),
            [
                lambda: array,
                lambda: tf.transpose(tf.reverse(array, [axes[1]]), order),
                lambda: tf.reverse(array, axes),
                lambda: tf.reverse(tf.transpose(array, order), [axes[1]]),
            ],
        )

    return turned(image), turned(label)


class Warp(NamedTuple):
    """The mapping from voxels of the result to places in the source, in n dimensions.

    matrix:       (n, n), offsets from the centre of the result -> from the centre of the source
    shift:        (n,) voxels, added in the source
    displacement: (g, ..., g, n) voxels, coefficients of a cubic B-spline over the result
    """

    matrix: tf.Tensor
    shift: tf.Tensor
    displacement: tf.Tensor


def draw_spatial(
    seed: tf.Tensor, size: tuple[int, ...], settings: Spatial, spacing: tf.Tensor | None = None
) -> Warp:
    """Draw a warp for patches of `size` (n,) voxels.

    `spacing` (n,) is the size of a voxel in mm, by default the same along all axes. A rotation is
    one of millimetres: turned by voxels, a head of thick slices would be sheared.
    """
    n = len(size)
    rotates = tf.cast(happens(seed, 0, settings.p_rotation, []), tf.float32)
    scales = tf.cast(happens(seed, 1, settings.p_scale, []), tf.float32)
    bends = tf.cast(happens(seed, 2, settings.p_elastic, []), tf.float32)
    limit = math.radians(settings.rotation)
    angles = uniform(seed, 3, [1 if n == 2 else 3], -limit, limit) * rotates
    low, high = (math.log(value) for value in settings.scale)
    zoom = uniform(seed, 4, [], low, high)
    stretch = uniform(seed, 5, [n], -1.0, 1.0) * math.log1p(settings.stretch)
    # Stretch and shift have no share of their own: without scaling or rotation they always act.
    logarithm = (zoom if settings.p_scale else 0.0) + stretch - tf.reduce_mean(stretch)
    factors = tf.exp(-logarithm * (scales if settings.p_scale else 1.0))
    extent = tf.constant(size, tf.float32)
    shift = uniform(seed, 6, [n], -settings.shift, settings.shift) * extent
    shift *= rotates if settings.p_rotation else 1.0
    grid = [settings.knots] * n
    knots = tf.random.stateless_normal([*grid, n], tf.random.fold_in(seed, 7))
    knots = tf.clip_by_value(knots, -_LARGEST_DEVIATION, _LARGEST_DEVIATION)
    rotation = _rotation(angles)
    if spacing is not None:
        rotation *= spacing / spacing[:, tf.newaxis]
    return Warp(
        matrix=rotation * factors,
        shift=shift,
        displacement=knots * settings.elastic * extent * bends,
    )


_LARGEST_DEVIATION = 3.0
"""Limit of a knot in standard deviations, so that the region that is read stays bounded."""


def _rotation(angles: tf.Tensor) -> tf.Tensor:
    """Return the rotation of angles: (1,) -> (2, 2); (3,) -> (3, 3), about depth, height, width."""
    planes = [(0, 1)] if angles.shape[0] == 1 else [(1, 2), (0, 2), (0, 1)]
    n = 2 if len(planes) == 1 else 3
    total = tf.eye(n)
    for angle, (a, b) in zip(tf.unstack(angles), planes, strict=True):
        cosine, sine = tf.cos(angle), tf.sin(angle)
        entries = {(a, a): cosine - 1.0, (b, b): cosine - 1.0, (a, b): -sine, (b, a): sine}
        places = tf.constant(list(entries))
        total = tf.tensor_scatter_nd_add(tf.eye(n), places, list(entries.values())) @ total
    return total


def sources(warp: Warp, size: tuple[int, ...], *, bent: bool = True) -> list[tf.Tensor]:
    """For each axis of the source the coordinate (*size) that every voxel of the patch comes from,
    in voxels of the patch. Without `bent` the displacement is not read."""
    rank = len(size)
    half = [(n - 1) / 2.0 for n in size]
    lines = [tf.range(n, dtype=tf.float32) - h for n, h in zip(size, half, strict=True)]
    offsets = [
        tf.reshape(line, [-1 if a == axis else 1 for a in range(rank)])
        for axis, line in enumerate(lines)
    ]
    if bent:
        flow = warp.displacement
        for axis, n in enumerate(size):
            basis = tf.constant(_spline_basis(n, warp.displacement.shape[axis]))
            flow = tf.tensordot(flow, basis, [[0], [1]])  # this axis goes to the end
        # Now (n, *size): the axis of components came to the front.
        offsets = [line + flow[axis] for axis, line in enumerate(offsets)]
    coordinates = []
    for i in range(rank):
        place = half[i] + warp.shift[i]
        for j in range(rank):
            place += warp.matrix[i, j] * offsets[j]
        coordinates.append(tf.broadcast_to(place, size))
    return coordinates


def _spline_basis(length: int, knots: int) -> np.ndarray:
    """(length, knots) weights of uniform cubic B-splines whose outermost lie on the edges' outside,
    so that every voxel has four."""
    t = np.linspace(0.0, knots - 3.0, length)
    first = np.minimum(t.astype(int), knots - 4)
    u = t - first
    weights = [
        (1 - u) ** 3 / 6,
        (3 * u**3 - 6 * u**2 + 4) / 6,
        (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
        u**3 / 6,
    ]
    basis = np.zeros((length, knots), np.float32)
    for k, weight in enumerate(weights):
        basis[np.arange(length), first + k] = weight
    return basis
