"""`Case`: one scan of one patient, whatever files it came from."""

from dataclasses import dataclass, field

import numpy as np

from kerasseg.errors import UserError


@dataclass
class Case:
    """One scan in memory, axes (depth, height, width) = (superior, posterior, left) growing.

    image:      (D, H, W, C) float32, raw intensities
    label:      (D, H, W) uint8 canonical ids (`anatomy.LABELS`), or None where unknown
    spacing:    (D, H, W) voxel size in mm
    affine:     4 x 4, array indices (d, h, w, 1) -> scanner RAS coordinates in mm
    modalities: the C channels in order
    notes:      what a reader saw and could live with, such as slices missing from the file set
    """

    case_id: str
    patient_id: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    affine: np.ndarray
    modalities: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def check_case(case: Case) -> Case:
    """Return `case` if a store may hold it.

    Raises `UserError` for a non-finite voxel, a channel without any non-zero voxel, or a
    label of another shape than the image.
    """
    for channel, modality in enumerate(case.modalities):
        values = case.image[..., channel]
        # The sum of squares is non-finite if any voxel is, at a tenth of isfinite's memory.
        if not np.isfinite(np.vdot(values, values)):
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                raise UserError(
                    f"{case.case_id}: {modality} has {len(bad)} NaN or infinite voxel(s), the "
                    f"first at (depth, height, width) = {tuple(int(v) for v in bad[0])}: repair or "
                    "remove this case."
                )
        if not values.any():
            raise UserError(
                f"{case.case_id}: {modality} is zero in every voxel: the scan is empty; restore "
                "the file or remove this case."
            )
    if case.label is not None and case.label.shape != case.image.shape[:3]:
        raise UserError(
            f"{case.case_id}: the segmentation has shape {case.label.shape} (depth, height, width) "
            f"but the image has {case.image.shape[:3]}: they must be of the same scan."
        )
    return case
