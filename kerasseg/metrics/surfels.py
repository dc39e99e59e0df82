"""Surfaces in pieces with an area, as BraTS 2023 measures between them."""

from dataclasses import dataclass

import numpy as np

from kerasseg.metrics.nearest_distances import nearest_distances
from kerasseg.metrics.surfel_areas import surfel_areas


@dataclass(frozen=True)
class Surfels:
    """The pieces of a mask's surface: where eight voxels meet that are not all in or all out.

    points (N, 3), indices of the volume's grid of corners, and areas (N,) in mm^2, for a spacing in
    mm. So does DeepMind's surface-distance package.
    """

    points: np.ndarray
    areas: np.ndarray
    spacing: tuple[float, float, float]

    @classmethod
    def of_mask(
        cls, mask: np.ndarray, spacing: tuple[float, float, float], box: tuple[slice, ...]
    ) -> "Surfels":
        """Of a boolean mask (D, H, W) with at least one voxel, cut out of a volume at `box`.

        Outside the mask's array is outside.
        """
        padded = np.pad(mask, 1).view(np.uint8)
        depth, height, width = (side - 1 for side in padded.shape)
        code = np.zeros((depth, height, width), np.uint8)
        for bit in range(8):
            d, h, w = bit >> 2 & 1, bit >> 1 & 1, bit & 1
            code |= padded[d : d + depth, h : h + height, w : w + width] << bit
        border = (code != 0) & (code != 255)
        points = np.argwhere(border) + [side.start for side in box]
        return cls(points, surfel_areas(spacing)[code[border]], spacing)

    def hd95(self, other: "Surfels") -> float:
        """The larger of the two directions' 95th percentiles of distance in mm.

        A percentile is the first distance, of rising ones, up to which lies 95 % of the area
        (`compute_robust_hausdorff` of surface-distance).
        """
        return max(self._towards(other), other._towards(self))

    def _towards(self, other: "Surfels") -> float:
        distances = nearest_distances(self.points, other.points, self.spacing)
        order = np.lexsort((self.areas, distances))
        areas = self.areas[order]
        share = np.cumsum(areas) / np.sum(areas)
        place = min(int(np.searchsorted(share, 0.95)), len(order) - 1)
        return float(distances[order[place]])
