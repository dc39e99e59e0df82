"""Where a patch of a volume lies."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config import PipelineSettings
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.cut import cut
from kerasseg.pipeline.parse import Record
from kerasseg.settings.augment import Transform


def draw_patch(
    record: Record,
    settings: PipelineSettings,
    seed: tf.Tensor,
    transforms: Sequence[Transform] = (),
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random patch: image (d, h, w, C) float16 and label (d, h, w) uint8.

    `seed` is a stateless seed (2,). A volume smaller than the patch is padded evenly with
    background. Of `transforms` those of its place take effect (`cut`).
    """
    patch = Patch.of(settings, record.voxels.values.shape[1])
    shape = record.voxels.shape
    start = sample_start(shape, record.foreground, settings, seed)
    return cut(record.voxels, start - padding(shape, patch.size), patch, transforms, seed)


def sample_start(
    shape: tf.Tensor,
    foreground: Sequence[tf.Tensor],
    settings: PipelineSettings,
    seed: tf.Tensor,
) -> tf.Tensor:
    """First voxel (3,) int32 of a random patch in a volume of `shape` (3,).

    The patch is centred on a tumour voxel as often as the settings say (`sample_voxel`), moved
    inwards where it would leave the volume; otherwise every place is equally likely. `seed` is a
    stateless seed (2,).
    """
    size = tf.constant(settings.patch_size, tf.int32)
    limit = tf.maximum(tf.cast(shape, tf.int32) - size, 0)
    chance, choice, place = (
        tf.random.stateless_uniform([3], tf.random.fold_in(seed, stream)) for stream in range(3)
    )
    wanted, voxel = sample_voxel(foreground, settings, chance[0], choice)
    centred = tf.clip_by_value(voxel - size // 2, 0, limit)
    return tf.where(wanted, centred, pick(place, limit + 1))


def sample_voxel(
    foreground: Sequence[tf.Tensor], settings: PipelineSettings, chance: tf.Tensor, draw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether a patch is centred on tumour (), and on which voxel (3,) int32.

    So it is in `tumour_share` of the patches: on a class drawn evenly from those present in
    `foreground` (one (N, 3) tensor per class), or in `class_shares`: on that class, or where the
    volume lacks it on one of those present. Without any tumour never. `chance` () and `draw`
    (2 or more,) are uniform in [0, 1).
    """
    counts = tf.stack([tf.shape(voxels)[0] for voxels in foreground])
    present = tf.where(counts > 0)[:, 0]
    some = tf.size(present) > 0

    def voxel() -> tf.Tensor:
        chosen = present[pick(draw[0], tf.size(present))]
        if settings.class_shares is not None:
            limits = tf.cumsum([share_of(settings, name) for name in anatomy.SUBREGIONS])
            asked = tf.minimum(tf.reduce_sum(tf.cast(chance >= limits, tf.int64)), 2)
            chosen = tf.where(counts[asked] > 0, asked, chosen)
        voxels = tf.concat(list(foreground), axis=0)
        first = tf.concat([[0], tf.cumsum(counts)], axis=0)[chosen]
        return voxels[first + pick(draw[1], counts[chosen])]

    wanted = tf.logical_and(chance < settings.centred_share, some)
    return wanted, tf.cond(wanted, voxel, lambda: tf.zeros([3], tf.int32))


def share_of(settings: PipelineSettings, name: str) -> float:
    """That of a class by its name; tumour of any kind has the number of the first sub-region."""
    shares = {str(key): share for key, share in (settings.class_shares or {}).items()}
    if anatomy.SUBREGIONS[name] == anatomy.TUMOUR and "tumour" in shares:
        return shares["tumour"]
    return shares.get(name, 0.0)


def padding(shape: tf.Tensor, patch_size: Sequence[int]) -> tf.Tensor:
    """Voxels to add before a volume of `shape`, so that the patch stands evenly over it."""
    return tf.maximum(tf.constant(patch_size, tf.int32) - shape, 0) // 2


def pick(uniform: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) -> indices below `count`."""
    scaled = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(scaled, count - 1)
