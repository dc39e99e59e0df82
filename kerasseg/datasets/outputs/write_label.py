"""A label map -> its file."""

from collections.abc import Mapping

import numpy as np

from kerasseg.datasets.grid import Grid
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.outputs.output_files import OutputFiles
from kerasseg.datasets.outputs.own_label import own_label
from kerasseg.datasets.pictures import write_picture

_WHITE = 255
"""Tumour in a picture of a mask."""


def write_label(
    files: OutputFiles,
    label: np.ndarray,
    ids: Mapping[int, int],
    grid: Grid,
    target: str,
    setting: str,
) -> None:
    """Write a label (D, H, W) of canonical ids, on the scan's own `grid`, in one step.

    It is written with `ids`, canonical -> own; the mask of a picture of target binary is 0 and 255.

    Raises `UserError` where it cannot be written; `setting` is what would move the file.
    """
    if not files.picture:
        voxels = np.ascontiguousarray(grid.to_file(own_label(label, ids)))
        write_nifti(files.label, voxels, grid, setting)
    elif target == "binary":
        write_picture(files.label, (label[0] > 0).astype(np.uint8) * _WHITE, setting)
    else:
        write_picture(files.label, own_label(label, ids)[0], setting)
