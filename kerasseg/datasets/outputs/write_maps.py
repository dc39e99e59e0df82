"""Maps of floats, such as probabilities -> a file of each channel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasseg.datasets.grid import Grid
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.pictures import write_picture


def write_maps(
    paths: Sequence[Path], maps: np.ndarray, grid: Grid, setting: str, *, picture: bool
) -> None:
    """Write maps (D, H, W, K), on the scan's own `grid`, as float32, each in one step.

    Raises `UserError` where a file cannot be written; `setting` is what would move it.
    """
    for channel, path in enumerate(paths):
        values = np.ascontiguousarray(maps[..., channel], np.float32)
        if picture:
            write_picture(path, values[0], setting)
        else:
            write_nifti(path, np.asfortranarray(grid.to_file(values)), grid, setting)
