"""Where a patch of a volume lies, and cutting it out."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg.config import PipelineSettings
from kerasseg.pipeline.augment.spatial import warped
from kerasseg.pipeline.parse import Record
from kerasseg.pipeline.take_rows import take_rows
from kerasseg.pipeline.voxel_rows import voxel_rows
from kerasseg.settings.augment import Spatial

_WARP = 1 << 19
"""Stream of a patch's seed that its warp draws from."""


def draw_patch(
    record: Record, settings: PipelineSettings, seed: tf.Tensor, spatial: Spatial | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random patch: image (d, h, w, C) float16 and label (d, h, w) uint8.

    `seed` is a stateless seed (2,). With `spatial` the patch is resampled from a region of the
    volume that is just large enough, so that nothing is lost at its edges.
    """
    size = settings.patch_size
    start = sample_start(record.shape, record.foreground, size, settings.tumour_share, seed)
    if spatial is None:
        return cut_patch(record, start, size)

    def region(first: tf.Tensor, extent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = voxel_rows(record, start - padding(record.shape, size) + first, extent)
        return take_rows(record.values, rows), take_rows(record.labels, rows)

    return warped(region, size, spatial, tf.random.fold_in(seed, _WARP))


def sample_start(
    shape: tf.Tensor,
    foreground: Sequence[tf.Tensor],
    patch_size: Sequence[int],
    tumour_share: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """First voxel (3,) int32 of a random patch in a volume of `shape` (3,).

    With probability `tumour_share` the patch is centred on a voxel of a class drawn evenly from
    those present in `foreground` (one (N, 3) tensor per class), moved inwards where it would
    leave the volume; otherwise, or without any tumour, every place is equally likely. `seed` is
    a stateless seed (2,).
    """
    patch = tf.constant(patch_size, tf.int32)
    limit = tf.maximum(tf.cast(shape, tf.int32) - patch, 0)
    chance, choice, place = (
        tf.random.stateless_uniform([3], tf.random.fold_in(seed, stream)) for stream in range(3)
    )
    anywhere = pick(place, limit + 1)
    counts = tf.stack([tf.shape(voxels)[0] for voxels in foreground])
    present = tf.where(counts > 0)[:, 0]
    if_tumour = tf.logical_and(chance[0] < tumour_share, tf.size(present) > 0)

    def centred() -> tf.Tensor:
        class_index = tf.cast(present[pick(choice[0], tf.size(present))], tf.int32)
        voxels = tf.concat(list(foreground), axis=0)
        first = tf.concat([[0], tf.cumsum(counts)], axis=0)[class_index]
        voxel = voxels[first + pick(choice[1], counts[class_index])]
        return tf.clip_by_value(voxel - patch // 2, 0, limit)

    return tf.cond(if_tumour, centred, lambda: anywhere)


def cut_patch(
    record: Record, start: tf.Tensor, patch_size: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (d, h, w, C) and label (d, h, w) from voxel `start` on.

    A volume smaller than the patch is padded evenly with background.
    """
    rows = voxel_rows(record, start - padding(record.shape, patch_size), patch_size)
    rows = tf.ensure_shape(rows, patch_size)
    return take_rows(record.values, rows), take_rows(record.labels, rows)


def padding(shape: tf.Tensor, patch_size: Sequence[int]) -> tf.Tensor:
    """Voxels to add before a volume of `shape`, so that the patch stands evenly over it."""
    return tf.maximum(tf.constant(patch_size, tf.int32) - shape, 0) // 2


def pick(uniform: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) -> indices below `count`."""
    scaled = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(scaled, count - 1)
