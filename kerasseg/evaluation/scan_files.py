"""Scans that belong to segmentation files, to be drawn below them."""

from pathlib import Path

import numpy as np

from kerasseg.datasets.nifti import read_nifti
from kerasseg.errors import UserError

_LIKED = ("flair", "t2f", "0000", "")
"""Parts of file names, the best first."""


def scan_file(folder: Path, case_id: str) -> Path | None:
    """The scan of a case below `folder`: named `case_id` or `case_id_…`, FLAIR if there is one."""
    found = [
        path
        for path in sorted(folder.rglob("*.nii*"))
        if path.name.split(".nii")[0] == case_id
        or path.name.startswith((f"{case_id}_", f"{case_id}-"))
    ]
    found = [path for path in found if "seg" not in path.name[len(case_id) :].lower()]
    for part in _LIKED:
        for path in found:
            if part in path.name[len(case_id) :].lower():
                return path
    return None


def read_scan(folder: Path, case_id: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Grey values (D, H, W) of that scan; None where there is none.

    Raises `UserError` where it has another shape than the segmentations (D, H, W).
    """
    path = scan_file(folder, case_id)
    if path is None:
        return None
    values, grid = read_nifti(path)
    if grid.our_shape != tuple(shape):
        raise UserError(
            f"{path}: has {grid.our_shape} voxels (depth, height, width), the segmentations of "
            f"{case_id} have {tuple(shape)}: give the scans they were drawn on with --images."
        )
    return grid.to_ours(values).astype(np.float32)
