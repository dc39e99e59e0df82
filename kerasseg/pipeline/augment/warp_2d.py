"""Rotation, scaling, shift and elastic deformation of a slice, as one resampling."""

from typing import NamedTuple

import tensorflow as tf


class Warp2D(NamedTuple):
    """Where each pixel of the result comes from.

    matrix:       (2, 2), pixel offsets from the centre (row, column) of the result -> of the source
    shift:        (2,) pixels, added in the source
    displacement: (g, g, 2) pixels, on a coarse grid over the slice, interpolated between its knots
    """

    matrix: tf.Tensor
    shift: tf.Tensor
    displacement: tf.Tensor


class WarpRanges(NamedTuple):
    """How far each goes."""

    rotation: float
    """Radians, either way."""
    log_scale: float
    """Logarithm of the factor, either way."""
    log_stretch: float
    """Logarithm of the factor along rows, its inverse along columns."""
    shift: float
    """Fraction of the slice."""
    elastic: float
    """Standard deviation of the knots' displacement, fraction of the slice."""
    knots: int
    """Knots along each axis."""
    affine_share: float
    """Share of the slices that are rotated, scaled and shifted."""
    elastic_share: float
    """Share of the slices that are deformed."""


def draw_warp_2d(seed: tf.Tensor, size: tuple[int, int], ranges: WarpRanges) -> Warp2D:
    """Random parameters for slices of `size` (h, w) pixels."""
    parameters = tf.random.stateless_uniform([5], tf.random.fold_in(seed, 0), -1.0, 1.0)
    chances = tf.unstack(tf.random.stateless_uniform([2], tf.random.fold_in(seed, 1)))
    parameters *= tf.cast(chances[0] < ranges.affine_share, tf.float32)
    angle = parameters[0] * ranges.rotation
    scale = tf.exp(-parameters[1] * ranges.log_scale)
    stretch = tf.exp(parameters[2] * ranges.log_stretch)
    extent = tf.constant(size, tf.float32)
    knots = tf.random.stateless_normal([ranges.knots, ranges.knots, 2], tf.random.fold_in(seed, 2))
    knots *= ranges.elastic * tf.cast(chances[1] < ranges.elastic_share, tf.float32)
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    return Warp2D(
        matrix=tf.stack(
            [
                tf.stack([cosine * stretch, -sine / stretch]),
                tf.stack([sine * stretch, cosine / stretch]),
            ]
        ),
        shift=parameters[3:] * ranges.shift * extent,
        displacement=knots * extent,
    )


def warp_2d(image: tf.Tensor, label: tf.Tensor, warp: Warp2D) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (h, w, C) float32 by bilinear, label (h, w) by nearest interpolation.

    What comes from outside the slice is 0: air, and no tumour.
    """
    height, width = image.shape[0], image.shape[1]
    rows, columns = tf.meshgrid(
        tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32), indexing="ij"
    )
    centre = tf.constant([(height - 1) / 2, (width - 1) / 2])
    offsets = tf.stack([rows, columns], -1) - centre
    offsets += tf.image.resize(warp.displacement, [height, width], "bicubic")
    source = tf.einsum("hwj,ij->hwi", offsets, warp.matrix) + centre + warp.shift
    nearest = tf.cast(tf.round(source), tf.int32)
    # A margin of one pixel makes every corner of an interpolation exist.
    image = tf.pad(image, [[1, 1], [1, 1], [0, 0]])
    label = tf.pad(label, [[1, 1], [1, 1]])
    limit = tf.constant([height, width], tf.int32)
    moved_label = tf.gather_nd(label, tf.clip_by_value(nearest, -1, limit) + 1)
    first = tf.floor(source)
    fraction = source - first
    corner = tf.cast(first, tf.int32)
    moved = tf.zeros_like(image[1:-1, 1:-1])
    for row in (0, 1):
        for column in (0, 1):
            weight = (fraction[..., 0] if row else 1.0 - fraction[..., 0]) * (
                fraction[..., 1] if column else 1.0 - fraction[..., 1]
            )
            place = tf.clip_by_value(corner + tf.constant([row, column]), -1, limit) + 1
            moved += tf.gather_nd(image, place) * weight[..., tf.newaxis]
    return moved, moved_label
