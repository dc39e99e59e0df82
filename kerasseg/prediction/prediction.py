"""`Prediction`: what a model says of one scan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.outputs.own_label import own_label
from kerasseg.datasets.resample import restore_label


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
