"""Drawing where a patch lies in a volume, and which slice of it a 2-D network gets."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.augment import Transform
from kerasseg.config.experiment import Experiment, PipelineSettings, SliceSettings
from kerasseg.errors import UserError
from kerasseg.pipeline.augment.patch import AXES, Patch
from kerasseg.pipeline.cut import cut
from kerasseg.pipeline.records import Record, voxel_rows
from kerasseg.records.store import RecordStore

_AXES = ("depth", "height", "width")
_STRIDE = 32
"""Voxels: the stride of the encoders of keras.applications, to which 240 is padded to 256."""


def draw_patch(
    record: Record,
    settings: PipelineSettings,
    seed: tf.Tensor,
    transforms: Sequence[Transform] = (),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw a random patch: image (d, h, w, C) float16 and label (d, h, w) uint8.

    `seed` is a stateless seed (2,). A volume smaller than the patch is padded evenly with
    background. Of `transforms` only flips and the warp take effect (`cut`).
    """
    patch = Patch.of(settings, record.voxels.values.shape[1])
    shape = record.voxels.shape
    start = sample_start(shape, record.foreground, settings, seed)
    return cut(record.voxels, start - padding(shape, patch.size), patch, transforms, seed)


def sample_start(
    shape: tf.Tensor, foreground: Sequence[tf.Tensor], settings: PipelineSettings, seed: tf.Tensor
) -> tf.Tensor:
    """Draw the first voxel (3,) int32 of a random patch in a volume of `shape` (3,).

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
    """Decide whether a patch is centred on tumour, and on which voxel.

    With `tumour_share` that share of the patches is, on a class drawn evenly from those present.
    With `class_shares` each class has its share, which goes to a class that is present where the
    volume lacks it. A volume without tumour has no such patch. Returns the decision () bool, and
    the voxel (3,) int32.

    Args:
        foreground: Coordinates (N, 3) of each class.
        chance: Uniform number () in [0, 1) that decides.
        draw: Two or more uniform numbers in [0, 1) that choose class and voxel.
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
    """Return the share of a class; tumour of any kind has the number of the first sub-region."""
    shares = {str(key): share for key, share in (settings.class_shares or {}).items()}
    if anatomy.SUBREGIONS[name] == anatomy.TUMOUR and "tumour" in shares:
        return shares["tumour"]
    return shares.get(name, 0.0)


def padding(shape: tf.Tensor, patch_size: Sequence[int]) -> tf.Tensor:
    """Return the voxels to add before a volume, so that the patch lies evenly over it."""
    return tf.maximum(tf.constant(patch_size, tf.int32) - shape, 0) // 2


def pick(uniform: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Turn uniform numbers in [0, 1) into indices below `count`."""
    scaled = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(scaled, count - 1)


def draw_slice(
    record: Record,
    settings: PipelineSettings,
    seed: tf.Tensor,
    transforms: Sequence[Transform] = (),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw a random patch of a random slice.

    It is image (h, w, C * (2n + 1)) float16 and label (h, w) uint8.

    Rows and columns are the remaining two axes in the order of (D, H, W). With n neighbours,
    channel (i + n) * C + c is modality c of the slice i further on, and 0 outside the volume.
    On a slice with tumour the patch is centred on one of its tumour voxels with probability
    `settings.tumour_share`, moved inwards where it would leave the volume; otherwise every place
    is equally likely. With `settings.class_shares` a tumour voxel is drawn first, and the slice is
    the one that it lies in. `seed` is a stateless seed (2,). Of `transforms` only flips and the
    warp take effect (`cut`), within the plane and the same for all slices.
    """
    patch = Patch.of(settings, record.voxels.values.shape[1])
    return cut(record.voxels, first_of_slice(record, settings, seed), patch, transforms, seed)


def first_of_slice(record: Record, settings: PipelineSettings, seed: tf.Tensor) -> tf.Tensor:
    """Draw the first voxel (3,) int32 of a patch as `draw_slice` does, of the first neighbour."""
    patch = Patch.of(settings, record.voxels.values.shape[1])
    assert patch.across is not None
    axis, plane = patch.across, list(patch.inside)
    size = tf.constant(patch.size, tf.int32)
    slice_seed, chance_seed, place_seed = (tf.random.fold_in(seed, stream) for stream in range(3))
    shape = tf.gather(record.voxels.shape, plane)
    limit = tf.maximum(shape - size, 0)
    place = tf.random.stateless_uniform([2], place_seed)
    chance = tf.random.stateless_uniform([], chance_seed)
    index = sample_slice(record, settings.slices, slice_seed)
    anywhere = pick(place, limit + 1)
    if settings.class_shares is not None:
        wanted, voxel = sample_voxel(record.foreground, settings, chance, place)
        index = tf.where(wanted, voxel[axis], index)
        centre = tf.gather(voxel, plane)
    else:
        wanted = _voxels_along(record.tumour_voxels, record, axis)[index] > 0
        wanted = tf.logical_and(chance < settings.tumour_share, wanted)

        def tumour_voxel() -> tf.Tensor:
            voxels = _tumour_in(record, axis, index)
            return tf.gather(voxels[pick(place[0], tf.shape(voxels)[0])], plane)

        centre = tf.cond(wanted, tumour_voxel, lambda: tf.zeros([2], tf.int32))
    start = tf.where(wanted, tf.clip_by_value(centre - size // 2, 0, limit), anywhere)
    start -= padding(shape, patch.size)
    first = tf.unstack(start)
    first.insert(axis, index - settings.slices.neighbours)
    return tf.stack(first)


def sample_slice(record: Record, settings: SliceSettings, seed: tf.Tensor) -> tf.Tensor:
    """Draw the index, scalar int32, of a slice along `settings.axis`.

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
    """Return the part of `brain_voxels` or `tumour_voxels` that counts along one axis."""
    return tf.split(voxels, record.voxels.shape, num=3)[axis]


def _tumour_in(record: Record, axis: int, index: tf.Tensor) -> tf.Tensor:
    """Return the tumour voxels (N, 3) int32 of a slice, as if it were the first."""
    lines = [
        tf.reshape(tf.range(size), [-1 if a == own else 1 for a in range(3)])
        for own, size in enumerate(tf.unstack(record.voxels.shape))
    ]
    lines[axis] = tf.reshape(index, [1, 1, 1])
    label = tf.gather(record.voxels.labels, voxel_rows(record.voxels, *lines))
    return tf.cast(tf.where(label > 0), tf.int32)


def check_store(experiment: Experiment, store: RecordStore, case_ids: Sequence[str]) -> None:
    """Check that patches can be drawn from these training cases as the settings ask.

    Raises `UserError` if no case has the tumour that patches are to be centred on, or all cases are
    smaller than a patch.
    """
    _check_shares(experiment, store, case_ids)
    _check_patch(experiment, store, case_ids)


def _check_shares(experiment: Experiment, store: RecordStore, case_ids: Sequence[str]) -> None:
    settings = experiment.pipeline
    voxels: dict[str, int] = {}
    for case_id in case_ids:
        for name, count in store.rows[case_id].voxels.items():
            voxels[name] = voxels.get(name, 0) + count
    shares = settings.class_shares
    if shares is None:
        if settings.tumour_share > 0 and not any(voxels.values()):
            raise UserError(
                f"pipeline.tumour_share={settings.tumour_share:g}, but none of the {len(case_ids)} "
                f"training cases of {store.root} has any tumour: look at their segmentations "
                "(kerasseg explore), or set pipeline.tumour_share=0."
            )
        return
    for name, share in shares.items():
        if share > 0 and not voxels.get(name):
            found = ", ".join(sorted(n for n, count in voxels.items() if count)) or "none"
            raise UserError(
                f"pipeline.class_shares: {name}: {share:g}, but none of the {len(case_ids)} "
                f"training cases of {store.root} has any {name} (found: {found}): leave it out."
            )


def _check_patch(experiment: Experiment, store: RecordStore, case_ids: Sequence[str]) -> None:
    """Refuse a patch that would be air at its edges in every case.

    Volumes are padded to a multiple of the network's stride, so that much air is expected.
    """
    patch = Patch.of(experiment.pipeline, len(experiment.data.modalities))
    shapes = [store.rows[case_id].full_shape for case_id in case_ids]
    stride = max(experiment.model.stride, _STRIDE)
    for axis, size in zip(patch.inside, patch.size, strict=True):
        largest = max(shape[axis] for shape in shapes)
        padded = -(-largest // stride) * stride
        if size > padded:
            raise UserError(
                f"pipeline.patch_size {list(patch.size)}: {size} voxels in {_AXES[axis]} are more "
                f"than any of the {len(case_ids)} training cases of {store.root} has, the largest "
                f"of them {largest}, padded to {padded}: use {padded} or less."
            )
