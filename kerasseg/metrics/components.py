"""The connected components of a mask."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kerasseg.metrics.bounding_box import bounding_box

NEIGHBOURS = np.ones((3, 3, 3), bool)
"""26-connectivity: voxels that share a face, an edge or a corner belong together."""


@dataclass(frozen=True)
class Components:
    """A boolean mask (D, H, W), the number of its components of 26 neighbours, and their labels
    (D, H, W), 1 to that number, 0 outside the mask."""

    mask: np.ndarray
    labels: np.ndarray
    number: int

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> "Components":
        labels = np.zeros(mask.shape, np.int32)
        number = 0
        if mask.any():
            box = bounding_box(mask)
            number = int(ndimage.label(mask[box], NEIGHBOURS, output=labels[box]))
        return cls(mask, labels, number)

    def touched_by(self, other: np.ndarray) -> int:
        """How many have a voxel in another boolean mask of the same shape."""
        touched = np.zeros(self.number + 1, bool)
        touched[self.labels[other]] = True
        return int(np.count_nonzero(touched[1:]))
