"""Which slice of a volume a 2-D network gets, and cutting a patch out of it."""

import tensorflow as tf

from kerasseg.config import PipelineSettings, SliceSettings
from kerasseg.pipeline.augment.spatial import warped
from kerasseg.pipeline.parse import Record
from kerasseg.pipeline.patches import padding, pick
from kerasseg.pipeline.take_rows import take_rows
from kerasseg.pipeline.voxel_rows import voxel_rows
from kerasseg.settings.augment import Spatial

_WARP = 1 << 19
"""Stream of a patch's seed that its warp draws from."""
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of (D, H, W) that a plane stands across."""


def draw_slice(
    record: Record, settings: PipelineSettings, seed: tf.Tensor, spatial: Spatial | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random patch of a random slice: image (h, w, C * (2n + 1)) float16, label (h, w) uint8.

    Rows and columns are the remaining two axes in the order of (D, H, W). With n neighbours,
    channel (i + n) * C + c is modality c of the slice i further on, and 0 outside the volume.
    On a slice with tumour the patch is centred on one of its tumour voxels with probability
    `settings.tumour_share`, moved inwards where it would leave the volume; otherwise every place
    is equally likely. `seed` is a stateless seed (2,). `spatial` is as in `draw_patch`, within the
    plane and the same for all slices.
    """
    axis = AXES[settings.slices.axis]
    plane = [a for a in range(3) if a != axis]
    patch_size, neighbours = settings.patch_size, settings.slices.neighbours
    slice_seed, chance_seed, place_seed = (tf.random.fold_in(seed, stream) for stream in range(3))
    index = sample_slice(record, settings.slices, slice_seed)
    shape = tf.gather(record.shape, plane)
    limit = tf.maximum(shape - tf.constant(patch_size, tf.int32), 0)
    place = tf.random.stateless_uniform([2], place_seed)
    chance = tf.random.stateless_uniform([], chance_seed)
    if_tumour = tf.logical_and(
        chance < settings.tumour_share, _voxels_along(record.tumour_voxels, record, axis)[index] > 0
    )

    def centred() -> tf.Tensor:
        voxels = _tumour_in(record, axis, index)
        voxel = tf.gather(voxels[pick(place[0], tf.shape(voxels)[0])], plane)
        return tf.clip_by_value(voxel - tf.constant(patch_size) // 2, 0, limit)

    start = tf.cond(if_tumour, centred, lambda: pick(place, limit + 1))
    start -= padding(shape, patch_size)
    thickness = 2 * neighbours + 1
    channels = thickness * record.values.shape[1]

    def region(first: tf.Tensor, extent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        corner = _insert(tf.unstack(start + first), axis, index - neighbours)
        size = tf.stack(_insert(tf.unstack(extent), axis, tf.constant(thickness)))
        rows = tf.transpose(voxel_rows(record, tf.stack(corner), size), [*plane, axis])
        image = tf.reshape(take_rows(record.values, rows), [*tf.unstack(extent), channels])
        return image, take_rows(record.labels, rows[..., neighbours])

    if spatial is not None:
        return warped(region, patch_size, spatial, tf.random.fold_in(seed, _WARP))
    image, label = region(tf.zeros([2], tf.int32), tf.constant(patch_size))
    return tf.ensure_shape(image, [*patch_size, channels]), tf.ensure_shape(label, patch_size)


def sample_slice(record: Record, settings: SliceSettings, seed: tf.Tensor) -> tf.Tensor:
    """Index, scalar int32, of a random slice along `settings.axis`.

    Every slice that `settings.keep` allows is equally likely, or, with `settings.empty_share`,
    every one of its kind, without or with tumour; a kind that the volume lacks gives way to the
    other. A volume without any slice to keep gives one of those with brain.
    """
    axis = AXES[settings.axis]
    brain, tumour = (
        _voxels_along(voxels, record, axis) > 0
        for voxels in (record.brain_voxels, record.tumour_voxels)
    )
    eligible = {"all": tf.ones_like(brain), "brain": brain, "tumour": tumour}[settings.keep]
    eligible = tf.where(tf.reduce_any(eligible), eligible, brain)
    kind_draw, draw = tf.unstack(tf.random.stateless_uniform([2], seed))
    wanted = eligible
    if settings.empty_share is not None:
        wanted = tf.logical_and(eligible, tumour != (kind_draw < settings.empty_share))
        wanted = tf.where(tf.reduce_any(wanted), wanted, eligible)
    slices = tf.cast(tf.where(wanted)[:, 0], tf.int32)
    return slices[pick(draw, tf.size(slices))]


def _voxels_along(voxels: tf.Tensor, record: Record, axis: int) -> tf.Tensor:
    """The part of `brain_voxels` or `tumour_voxels` that counts the slices along one axis."""
    return tf.split(voxels, record.shape, num=3)[axis]


def _tumour_in(record: Record, axis: int, index: tf.Tensor) -> tf.Tensor:
    """Coordinates (N, 3) int32 of the tumour voxels of a slice, as if it were the first."""
    sizes = tf.unstack(record.shape)
    sizes[axis] = tf.constant(1)
    start = tf.stack(_insert([0, 0], axis, index))
    label = take_rows(record.labels, voxel_rows(record, start, tf.stack(sizes)))
    return tf.cast(tf.where(label > 0), tf.int32)


def _insert(values: list, axis: int, value: tf.Tensor | int) -> list:
    """Two values of a plane and one across it -> three in the order of (D, H, W)."""
    return [*values[:axis], value, *values[axis:]]
