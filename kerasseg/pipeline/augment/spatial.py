"""Rotation, scaling, shift and elastic deformation, as one resampling."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasseg.pipeline.augment.drawing import happens, uniform
from kerasseg.settings.augment import Spatial


class Warp(NamedTuple):
    """Where each voxel of the result comes from, in n dimensions.

    matrix:       (n, n), offsets from the centre of the result -> from the centre of the source
    shift:        (n,) voxels, added in the source
    displacement: (g, ..., g, n) voxels, coefficients of a cubic B-spline over the result
    """

    matrix: tf.Tensor
    shift: tf.Tensor
    displacement: tf.Tensor


def draw_spatial(seed: tf.Tensor, size: tuple[int, ...], settings: Spatial) -> Warp:
    """Random parameters for patches of `size` (n,) voxels."""
    n = len(size)
    rotates = tf.cast(happens(seed, 0, settings.p_rotation, []), tf.float32)
    scales = tf.cast(happens(seed, 1, settings.p_scale, []), tf.float32)
    bends = tf.cast(happens(seed, 2, settings.p_elastic, []), tf.float32)
    limit = math.radians(settings.rotation)
    angles = uniform(seed, 3, [1 if n == 2 else 3], -limit, limit) * rotates
    low, high = (math.log(value) for value in settings.scale)
    zoom = uniform(seed, 4, [], low, high)
    stretch = uniform(seed, 5, [n], -1.0, 1.0) * math.log1p(settings.stretch)
    factors = tf.exp(-(zoom + stretch - tf.reduce_mean(stretch)) * scales)
    extent = tf.constant(size, tf.float32)
    shift = uniform(seed, 6, [n], -settings.shift, settings.shift) * extent * rotates
    grid = [settings.knots] * n
    knots = tf.random.stateless_normal([*grid, n], tf.random.fold_in(seed, 7))
    knots = tf.clip_by_value(knots, -_LARGEST_DEVIATION, _LARGEST_DEVIATION)
    return Warp(
        matrix=_rotation(angles) * factors,
        shift=shift,
        displacement=knots * settings.elastic * extent * bends,
    )


_LARGEST_DEVIATION = 3.0
"""Of a knot, in standard deviations: so that the region that is read stays bounded."""


def _rotation(angles: tf.Tensor) -> tf.Tensor:
    """(1,) angles -> (2, 2), (3,) -> (3, 3) about depth, then height, then width."""
    planes = [(0, 1)] if angles.shape[0] == 1 else [(1, 2), (0, 2), (0, 1)]
    n = 2 if len(planes) == 1 else 3
    total = tf.eye(n)
    for angle, (a, b) in zip(tf.unstack(angles), planes, strict=True):
        cosine, sine = tf.cos(angle), tf.sin(angle)
        entries = {(a, a): cosine - 1.0, (b, b): cosine - 1.0, (a, b): -sine, (b, a): sine}
        places = tf.constant(list(entries))
        total = tf.tensor_scatter_nd_add(tf.eye(n), places, list(entries.values())) @ total
    return total


def warped(
    region: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    size: tuple[int, ...],
    settings: Spatial,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A patch of `size` as it comes, or resampled: image (*size, C) float16, label (*size) uint8.

    region(first, extent) cuts image (*extent, C) and label (*extent) out of a volume; `first` is
    relative to the patch's own place.
    """
    warp = draw_spatial(seed, size, settings)
    first, extent = source_region(warp, size)
    moves = tf.reduce_any(warp.matrix != tf.eye(len(size))) | tf.reduce_any(warp.shift != 0.0)
    moves |= tf.reduce_any(warp.displacement != 0.0)

    def moved() -> tuple[tf.Tensor, tf.Tensor]:
        image, label = resample(*region(first, extent), warp, first, size, settings.labels)
        return tf.cast(image, tf.float16), label

    def plain() -> tuple[tf.Tensor, tf.Tensor]:
        image, label = region(tf.zeros([len(size)], tf.int32), tf.constant(size))
        return tf.ensure_shape(image, [*size, image.shape[-1]]), tf.ensure_shape(label, size)

    return tf.cond(moves, moved, plain)


def source_region(warp: Warp, size: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """First voxel (n,) int32, relative to that of the patch, and size (n,) int32 of the box that
    the result of `size` is made from: just large enough for every interpolation."""
    half = (tf.constant(size, tf.float32) - 1.0) / 2.0
    axes = list(range(len(size)))
    # A cubic B-spline stays within its coefficients.
    bend = tf.reduce_max(tf.abs(warp.displacement), axes)
    reach = tf.linalg.matvec(tf.abs(warp.matrix), half + bend)
    first = tf.floor(half + warp.shift - reach - _MARGIN)
    last = tf.floor(half + warp.shift + reach + _MARGIN) + 1.0
    return tf.cast(first, tf.int32), tf.cast(last - first, tf.int32) + 1


_MARGIN = 0.01
"""Voxels, for the rounding of float32."""


def resample(
    image: tf.Tensor,
    label: tf.Tensor,
    warp: Warp,
    first: tf.Tensor,
    size: tuple[int, ...],
    labels: str = "nearest",
) -> tuple[tf.Tensor, tf.Tensor]:
    """A region's image (*region, C) and label (*region) -> the patch's (*size, C) float32, (*size).

    The image linearly, the label nearest, or by the class with most of the weight of the linear
    interpolation (of equals the smallest id). `first` is the region's place, from
    `source_region`.
    """
    region = tf.shape(label)
    rank = len(size)
    coordinates = [c - tf.cast(first[i], tf.float32) for i, c in enumerate(_sources(warp, size))]
    steps = tf.math.cumprod(region, exclusive=True, reverse=True)
    limits = tf.unstack(region)
    floors = [tf.floor(c) for c in coordinates]
    fractions = [c - f for c, f in zip(coordinates, floors, strict=True)]
    corner = sum(
        tf.clip_by_value(tf.cast(f, tf.int32), 0, limit - 2) * step
        for f, limit, step in zip(floors, limits, tf.unstack(steps), strict=True)
    )
    corner = tf.reshape(corner, [-1])
    fractions = [tf.reshape(f, [-1, 1]) for f in fractions]
    flat = tf.reshape(tf.cast(image, tf.float32), [-1, image.shape[-1]])
    flat_label = tf.reshape(label, [-1])

    def corners(table: tf.Tensor) -> list[tf.Tensor]:
        """The table's rows at the 2^n corners, the last axis fastest."""
        return [
            tf.gather_nd(table, (corner + tf.reduce_sum(tf.constant(bits) * steps))[:, tf.newaxis])
            for bits in itertools.product((0, 1), repeat=rank)
        ]

    values = corners(flat)
    for fraction in reversed(fractions):
        values = [a + (b - a) * fraction for a, b in zip(values[::2], values[1::2], strict=True)]
    moved = tf.reshape(values[0], [*size, image.shape[-1]])
    if labels == "linear":
        moved_label = _heaviest(corners(flat_label[:, tf.newaxis]), fractions)
    else:
        nearest = sum(
            tf.cast(fraction[:, 0] >= 0.5, tf.int32) * step
            for fraction, step in zip(fractions, tf.unstack(steps), strict=True)
        )
        moved_label = tf.gather_nd(flat_label, (corner + nearest)[:, tf.newaxis])
    return moved, tf.reshape(moved_label, size)


def _heaviest(labels: list[tf.Tensor], fractions: list[tf.Tensor]) -> tf.Tensor:
    """The class of the corners' labels that has most of the weight of a linear interpolation."""
    best, chosen = tf.zeros_like(fractions[0]), tf.zeros_like(labels[0])
    for class_id in range(_CLASSES):
        weights = [tf.cast(label == class_id, tf.float32) for label in labels]
        for fraction in reversed(fractions):
            pairs = zip(weights[::2], weights[1::2], strict=True)
            weights = [a + (b - a) * fraction for a, b in pairs]
        wins = weights[0] > best
        best = tf.where(wins, weights[0], best)
        chosen = tf.where(wins, tf.cast(class_id, chosen.dtype), chosen)
    return chosen[:, 0]


def _sources(warp: Warp, size: tuple[int, ...]) -> list[tf.Tensor]:
    """For each axis of the source the coordinate (*size) that every voxel of the patch comes from,
    in voxels of the patch."""
    rank = len(size)
    half = [(n - 1) / 2.0 for n in size]
    lines = [tf.range(n, dtype=tf.float32) - h for n, h in zip(size, half, strict=True)]

    def affine() -> list[tf.Tensor]:
        total = []
        for i in range(rank):
            terms = [
                tf.reshape(lines[j] * warp.matrix[i, j], [-1 if a == j else 1 for a in range(rank)])
                for j in range(rank)
            ]
            total.append(sum(terms[1:], terms[0]) + half[i] + warp.shift[i])
        return total

    def bent() -> list[tf.Tensor]:
        flow = warp.displacement
        for axis, n in enumerate(size):
            basis = tf.constant(_spline_basis(n, warp.displacement.shape[axis]))
            flow = tf.tensordot(flow, basis, [[0], [1]])  # this axis goes to the end
        # Now (n, *size): the axis of components came to the front.
        moved = tf.tensordot(warp.matrix, flow, [[1], [0]])
        return [a + moved[i] for i, a in enumerate(affine())]

    straight = tf.reduce_all(warp.displacement == 0.0)
    return [
        tf.ensure_shape(c, size)
        for c in tf.cond(straight, lambda: [tf.broadcast_to(c, size) for c in affine()], bent)
    ]


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


_CLASSES = 4
"""Canonical labels, 0 to 3."""
