"""The files of one case's prediction: label map, probabilities, entropy and variance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Grid
from kerasseg.datasets.labels import own_label
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.pictures import write_picture


@dataclass(frozen=True)
class OutputFiles:
    """The paths of one case's prediction in the output folder.

    picture: the input is a picture, so its mask is written as PNG and maps of float32 as TIFF
    """

    folder: Path
    case_id: str
    picture: bool

    @property
    def label(self) -> Path:
        """The label map. It is written last: a case that has one is finished."""
        return self.folder / f"{self.case_id}{'.png' if self.picture else '.nii.gz'}"

    @property
    def overlay(self) -> Path:
        """The drawing of the label over the scan."""
        return self.folder / "overlays" / f"{self.case_id}.png"

    def probabilities(self, target: str) -> list[Path]:
        """Return a path for each channel."""
        return self._maps("probability", anatomy.TARGETS[target])

    def entropy(self, target: str) -> list[Path]:
        """Return one path for a softmax target, and one for each channel of a sigmoid target."""
        softmax = anatomy.ACTIVATIONS[target] == "softmax"
        return self._maps("entropy", [""] if softmax else anatomy.TARGETS[target])

    def variance(self, target: str) -> list[Path]:
        """Return a path for each channel."""
        return self._maps("variance", anatomy.TARGETS[target])

    def _maps(self, what: str, channels: Iterable[str]) -> list[Path]:
        suffix = ".tif" if self.picture else ".nii.gz"
        names = [f"{self.case_id}_{what}{'_' * bool(c)}{c}{suffix}" for c in channels]
        return [self.folder / name for name in names]


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
