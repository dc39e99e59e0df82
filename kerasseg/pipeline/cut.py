"""Cutting a patch out of a record, mirrored and warped on the way, in one pass over its voxels."""

import itertools
from collections.abc import Sequence

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.augment import Flip, Spatial, Transform
from kerasseg.pipeline.augment.drawing import happens
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.augment.spatial import Warp, draw_spatial, sources
from kerasseg.pipeline.records import Voxels, compiled, voxel_rows

_FLIP, _WARP = 1 << 18, 1 << 19
"""Streams of a patch's seed that the flips and the warp draw from."""


def cut(
    voxels: Voxels,
    first: tf.Tensor,
    patch: Patch,
    transforms: Sequence[Transform] = (),
    seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut the patch that begins at a voxel of the volume; background lies outside the volume.

    Flips and the warp take place here: a warped patch is resampled out of the volume, so nothing is
    lost at its edges. Returns image (*size, C) float16 and label (*size) uint8; of slices that of
    the middle one.

    Args:
        voxels: The stored voxels of the case.
        first: First voxel (3,) of the patch; of slices that of the first neighbour.
        patch: Size and plane of the patch.
        transforms: Only every `Flip` and the first `Spatial` are applied.
        seed: Stateless seed (2,) that they are drawn from.
    """
    flips = tf.zeros([len(patch.size)], tf.bool)
    for index, transform in enumerate(transforms):
        if isinstance(transform, Flip):
            own = tf.random.fold_in(tf.random.fold_in(seed, _FLIP), index)
            drawn = happens(own, 0, transform.p, [len(patch.size)])
            mirrored = patch.axes(transform.axes)
            allowed = [axis in mirrored for axis in range(len(patch.size))]
            flips = tf.math.logical_xor(flips, drawn & tf.constant(allowed))

    def straight() -> tuple[tf.Tensor, tf.Tensor]:
        return cut_straight(voxels, first, flips, patch)

    spatial = next((t for t in transforms if isinstance(t, Spatial)), None)
    if spatial is None:
        return straight()
    spacing = tf.gather(voxels.spacing, patch.inside)
    warp = draw_spatial(tf.random.fold_in(seed, _WARP), patch.size, spatial, spacing)
    moves = tf.reduce_any(warp.matrix != tf.eye(len(patch.size))) | tf.reduce_any(warp.shift != 0.0)
    bends = tf.reduce_any(warp.displacement != 0.0)
    warp = warp._replace(matrix=warp.matrix * tf.where(flips, -1.0, 1.0))

    def affine() -> tuple[tf.Tensor, tf.Tensor]:
        return cut_warped(voxels, first, warp, patch, spatial.labels, bent=False)

    def bent() -> tuple[tf.Tensor, tf.Tensor]:
        return cut_warped(voxels, first, warp, patch, spatial.labels, bent=True)

    def unbent() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cond(moves, affine, straight)

    if spatial.elastic == 0.0 or spatial.p_elastic == 0.0:
        return unbent()
    return tf.cond(bends, bent, unbent)


@compiled
def cut_straight(
    voxels: Voxels, first: tf.Tensor, flips: tf.Tensor, patch: Patch
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut a patch as `cut` does, mirrored along the axes where `flips` is true."""
    rank = len(patch.size)
    places: list[tf.Tensor] = [None] * 3
    for axis, (own, size) in enumerate(zip(patch.inside, patch.size, strict=True)):
        forth = tf.range(size)
        line = first[own] + tf.where(flips[axis], size - 1 - forth, forth)
        places[own] = tf.reshape(line, [-1 if a == axis else 1 for a in range(3)])
    if patch.across is not None:
        places[patch.across] = _neighbours(first, patch)
    rows = tf.broadcast_to(voxel_rows(voxels, *places), [*patch.size, patch.slices][:3])
    image = tf.reshape(tf.gather(voxels.values, rows), [*patch.size, patch.channel_count])
    middle = rows if rank == 3 else rows[..., patch.slices // 2]
    return image, tf.gather(voxels.labels, middle)


@compiled
def cut_warped(
    voxels: Voxels, first: tf.Tensor, warp: Warp, patch: Patch, labels: str, *, bent: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut a patch as `cut` does, each voxel from its place in `warp`.

    The image is interpolated linearly. The label is the nearest voxel's or, where `labels` is
    linear, the id with most of the weight of the linear interpolation (of equals the smallest).
    Without `bent` the displacement of the warp is not read.
    """
    rank = len(patch.size)
    floors, fractions = [], []
    for own, coordinate in zip(patch.inside, sources(warp, patch.size, bent=bent), strict=True):
        low = tf.floor(coordinate)
        whole, fraction = tf.cast(low, tf.int32) + first[own], coordinate - low
        floors.append(whole if rank == 3 else whole[..., tf.newaxis])
        fractions.append(fraction if rank == 3 else fraction[..., tf.newaxis])

    def rows(steps: Sequence[tf.Tensor | int]) -> tf.Tensor:
        places: list[tf.Tensor] = [None] * 3
        for own, low, step in zip(patch.inside, floors, steps, strict=True):
            places[own] = low + step
        if patch.across is not None:
            places[patch.across] = _neighbours(first, patch)
        return voxel_rows(voxels, *places)

    corners = [rows(steps) for steps in itertools.product((0, 1), repeat=rank)]
    values = [tf.cast(tf.gather(voxels.values, corner), tf.float32) for corner in corners]
    for fraction in reversed(fractions):
        weight = fraction[..., tf.newaxis]
        values = [a + (b - a) * weight for a, b in zip(values[::2], values[1::2], strict=True)]
    image = tf.reshape(tf.cast(values[0], tf.float16), [*patch.size, patch.channel_count])

    def middle(rows: tf.Tensor) -> tf.Tensor:
        return rows if rank == 3 else rows[..., patch.slices // 2]

    if labels == "linear":
        ids = [tf.gather(voxels.labels, middle(corner)) for corner in corners]
        return image, _heaviest(ids, [f if rank == 3 else f[..., 0] for f in fractions])
    nearest = middle(rows([tf.cast(fraction >= 0.5, tf.int32) for fraction in fractions]))
    return image, tf.gather(voxels.labels, nearest)


def _neighbours(first: tf.Tensor, patch: Patch) -> tf.Tensor:
    """Return the places of a slice and its neighbours across the plane, (1, 1, slices)."""
    return tf.reshape(first[patch.across] + tf.range(patch.slices), [1, 1, -1])


def _heaviest(labels: list[tf.Tensor], fractions: list[tf.Tensor]) -> tf.Tensor:
    """Return the class of the corners' labels with most weight in a linear interpolation."""
    best, chosen = tf.zeros_like(fractions[0]), tf.zeros_like(labels[0])
    for class_id in range(_CLASSES):
        weights = [tf.cast(label == class_id, tf.float32) for label in labels]
        for fraction in reversed(fractions):
            pairs = zip(weights[::2], weights[1::2], strict=True)
            weights = [a + (b - a) * fraction for a, b in pairs]
        wins = weights[0] > best
        best = tf.where(wins, weights[0], best)
        chosen = tf.where(wins, tf.cast(class_id, chosen.dtype), chosen)
    return chosen


_CLASSES = 4
"""Canonical labels, 0 to 3."""


@compiled
def target_masks(label: tf.Tensor, target: str) -> tf.Tensor:
    """Turn canonical ids (...) uint8 into masks (..., K) uint8, 1 where a channel holds.

    The K channels are those of `anatomy.TARGETS[target]`.
    """
    channels = anatomy.TARGETS[target].values()
    # A number per class and channel rather than a table: compiled, it needs no memory at all.
    masks = [
        tf.reduce_any([label == class_id for class_id in sorted(ids)], axis=0) for ids in channels
    ]
    return tf.cast(tf.stack(masks, axis=-1), tf.uint8)
