"""`Prediction`: the labels and probabilities of one scan, on the scan's own grid.

It needs no TensorFlow, so that a client of a server does not start it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, Grid
from kerasseg.datasets.labels import own_label
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.resample import restore_label
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


@dataclass(frozen=True)
class Prediction:
    """Axes (depth, height, width) = (superior, posterior, left) growing, on the grid of the scan.

    case:          the scan, with the modalities that the model takes
    target:        what was predicted, a key of `anatomy.TARGETS`
    label:         (D, H, W) uint8 canonical ids; of the target binary 1 is tumour of any kind
    probabilities: (D, H, W, K) float32, its channels are `channels`
    entropy:       (D, H, W, 1 or K) float32 in bits, if it was asked for
    variance:      (D, H, W, K) float32 over runs or test-time augmentation, if there are several
    """

    case: Case
    target: str
    label: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray | None = None
    variance: np.ndarray | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the K channels."""
        return tuple(anatomy.TARGETS[self.target])

    @property
    def affine(self) -> np.ndarray:
        """4 x 4, array indices (d, h, w, 1) -> scanner RAS coordinates in mm."""
        return self.case.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (D, H, W) in mm."""
        return self.case.spacing

    def own_label(self, ids: Mapping[int, int] | None = None) -> np.ndarray:
        """The label with a data set's own ids, canonical id -> own; the smallest unsigned dtype
        that holds them."""
        return self.label if ids is None else own_label(self.label, ids)

    def save(self, path: Path | str, ids: Mapping[int, int] | None = None) -> None:
        """Write the label as NIfTI in the grid of the scan's file, (x, y, z).

        ids: canonical id -> what is written
        """
        label = restore_label(self.own_label(ids), self.affine, self.case.grid)
        write_nifti(Path(path), label, self.case.grid, "--output")


class Segmenter(Protocol):
    """What `predict_files` needs of a `Model`."""

    @property
    def data(self) -> DataSettings:
        """Which modalities it takes, and the ids of its data set."""

    @property
    def target(self) -> str:
        """A key of `anatomy.TARGETS`."""

    @property
    def members(self) -> int:
        """Over how many predictions the variance is taken."""

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """The prediction of a raw case. Raises `UserError` for one that it does not take."""
