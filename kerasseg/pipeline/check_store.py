"""Whether patches can be drawn as the settings ask, before anything is trained."""

from collections.abc import Sequence

from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.records.store import RecordStore

_AXES = ("depth", "height", "width")
_STRIDE = 32
"""Voxels: that of the encoders of keras.applications, to which 240 is padded to 256."""


def check_store(experiment: Experiment, store: RecordStore, case_ids: Sequence[str]) -> None:
    """Raises `UserError` if no training case has the tumour that patches are to be centred on, or
    all of them are smaller than a patch."""
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
    """Volumes are padded to sizes that networks like; a patch beyond that would be air at its
    edges in every case."""
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
