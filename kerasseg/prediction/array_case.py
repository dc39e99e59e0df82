"""An array -> a raw case."""

from collections.abc import Sequence

import numpy as np

from kerasseg.datasets.case import Case
from kerasseg.datasets.grid import Grid
from kerasseg.errors import UserError


def array_case(
    image: np.ndarray, spacing: Sequence[float], modalities: tuple[str, ...], name: str = "array"
) -> Case:
    """Raw intensities (D, H, W, C) -> a case at the origin, with the house's axes.

    spacing: voxel size (D, H, W) in mm

    Raises `UserError` for another number of axes or channels, for values that are no numbers, and
    for an impossible voxel size.
    """
    wanted = f"(depth, height, width, {len(modalities)}) with the channels {', '.join(modalities)}"
    if image.ndim != 4:
        raise UserError(
            f"The array has shape {image.shape}, expected {wanted}; a picture has a depth of 1."
        )
    if image.shape[-1] != len(modalities):
        raise UserError(
            f"The array has {image.shape[-1]} channel(s), shape {image.shape}, expected {wanted}."
        )
    if 0 in image.shape or image.dtype.kind not in "iufb":
        raise UserError(f"The array, {image.dtype} of shape {image.shape}, holds no scan.")
    if len(spacing) != 3 or not all(0 < size < np.inf for size in spacing):
        raise UserError(
            f"spacing is {tuple(spacing)}, expected the voxel size (depth, height, width) in mm."
        )
    depth, height, width = image.shape[:3]
    d, h, w = (float(size) for size in spacing)
    grid = Grid((width, height, depth), np.diag([-w, -h, d, 1.0]))
    return Case(
        case_id=name,
        patient_id=name,
        image=image.astype(np.float32),
        label=None,
        spacing=(d, h, w),
        affine=grid.our_affine,
        modalities=modalities,
        grid=grid,
    )
