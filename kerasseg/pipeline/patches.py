"""Where a patch lies, and cutting it out."""

from collections.abc import Sequence

import tensorflow as tf


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
    anywhere = tf.minimum(tf.cast(place * tf.cast(limit + 1, tf.float32), tf.int32), limit)
    counts = tf.stack([tf.shape(voxels)[0] for voxels in foreground])
    present = tf.where(counts > 0)[:, 0]
    share = tf.cast(tf.size(present), tf.float32)
    if_tumour = tf.logical_and(chance[0] < tumour_share, tf.size(present) > 0)

    def centred() -> tf.Tensor:
        class_index = tf.cast(present[_pick(choice[0], share)], tf.int32)
        voxels = tf.concat(list(foreground), axis=0)
        first = tf.concat([[0], tf.cumsum(counts)], axis=0)[class_index]
        voxel = voxels[first + _pick(choice[1], tf.cast(counts[class_index], tf.float32))]
        return tf.clip_by_value(voxel - patch // 2, 0, limit)

    return tf.cond(if_tumour, centred, lambda: anywhere)


def cut_patch(volume: tf.Tensor, start: tf.Tensor, patch_size: Sequence[int]) -> tf.Tensor:
    """Cut a patch from (D, H, W) or (D, H, W, C); a smaller volume is padded evenly with zeros."""
    patch = tf.constant(patch_size, tf.int32)
    size = tf.minimum(patch, tf.shape(volume)[:3] - start)
    before = (patch - size) // 2
    pads = tf.stack([before, patch - size - before], axis=1)
    channels = volume.shape[3:].as_list()
    if channels:
        start = tf.concat([start, [0]], axis=0)
        size = tf.concat([size, [-1]], axis=0)
        pads = tf.concat([pads, [[0, 0]]], axis=0)
    cut = tf.slice(volume, start, size)
    # Most volumes are larger than the patch, and padding by nothing would still copy it.
    cut = tf.cond(tf.reduce_any(pads > 0), lambda: tf.pad(cut, pads), lambda: cut)
    return tf.ensure_shape(cut, [*patch_size, *channels])


def _pick(uniform: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """A uniform number in [0, 1) -> an index below `count`."""
    return tf.cast(tf.minimum(tf.floor(uniform * count), count - 1), tf.int32)
