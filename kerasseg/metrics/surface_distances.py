"""Distances between the surfaces of two masks, and what is made of them."""

from dataclasses import dataclass

import numpy as np

from kerasseg.metrics.nearest_distances import nearest_distances
from kerasseg.metrics.surface import surface

_ROUNDING = 1e-6
"""mm. Three voxels of 0.1 mm are 0.30000000000000004 mm apart, and within a tolerance of 0.3 mm."""


@dataclass(frozen=True)
class SurfaceDistances:
    """mm from the centre of every surface voxel to the nearest of the other mask's surface: of the
    truth (N,), and of the prediction (M,), float64. Neither is empty."""

    of_truth: np.ndarray
    of_prediction: np.ndarray

    @classmethod
    def measure(
        cls, truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]
    ) -> "SurfaceDistances":
        """Of boolean masks (D, H, W) with voxels in both, at a spacing in mm.

        Cutting the volume to the box around both masks changes nothing but the time.
        """
        true, predicted = np.argwhere(surface(truth)), np.argwhere(surface(prediction))
        return cls(
            nearest_distances(true, predicted, spacing), nearest_distances(predicted, true, spacing)
        )

    @property
    def hd95(self) -> float:
        """95th percentile of the Hausdorff distance in mm: the larger of the two directions' 95th
        percentiles, each interpolated linearly.

        As MONAI; MedPy takes one percentile of both together. BraTS 2023 measures between pieces of
        surface weighed by their area, `Surfels.hd95`, and gets a slightly different number.
        """
        return float(max(np.percentile(self.of_truth, 95), np.percentile(self.of_prediction, 95)))

    @property
    def assd(self) -> float:
        """Average symmetric surface distance in mm: the mean over all surface voxels of both masks
        (as MONAI and MedPy), not the mean of the two directions' means."""
        total = self.of_truth.sum() + self.of_prediction.sum()
        return float(total / (self.of_truth.size + self.of_prediction.size))

    def surface_dice(self, tolerance: float) -> float:
        """Normalised surface Dice: the share of all surface voxels of both masks that lie within
        `tolerance` mm of the other surface (Nikolov et al. 2018, arXiv:1809.04430).

        Each surface voxel counts once, as in MONAI with use_subvoxels=False; the authors' own
        surface-distance package weighs pieces of surface by their area.
        """
        near = sum(
            int(np.count_nonzero(distances <= tolerance + _ROUNDING))
            for distances in (self.of_truth, self.of_prediction)
        )
        return near / (self.of_truth.size + self.of_prediction.size)
