"""`Grid`: where the voxels of an input file lie, and the way from there to our axes and back."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from nibabel import affines, orientations

_LPS = orientations.axcodes2ornt(("L", "P", "S"))
_REVERSE_AXES = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""(d, h, w, 1) -> (x, y, z, 1), for the transposition from file axes to ours."""


@dataclass(frozen=True)
class Grid:
    """The grid of a file: shape (x, y, z) and affine, voxel indices -> RAS mm.

    Ours has the axes depth, height, width, which grow to superior, posterior and left: the file's
    axes permuted and flipped, nothing interpolated. An oblique file stays oblique.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @cached_property
    def _turn(self) -> np.ndarray:
        return orientations.ornt_transform(orientations.io_orientation(self.affine), _LPS)

    @property
    def our_affine(self) -> np.ndarray:
        """Array indices (d, h, w, 1) of our axes -> RAS mm."""
        turned = self.affine @ orientations.inv_ornt_aff(self._turn, self.shape)
        return turned @ _REVERSE_AXES

    @property
    def our_shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        # Shape of an array that takes no memory, whatever the permutation.
        d, h, w = self.to_ours(np.broadcast_to(np.uint8(0), self.shape)).shape
        return d, h, w

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (D, H, W) in mm."""
        return spacing_of(self.our_affine)

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """(x, y, z) of the file -> (D, H, W), a view."""
        return orientations.apply_orientation(array, self._turn).transpose(2, 1, 0)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """(D, H, W) of `our_shape` -> (x, y, z) of the file; the inverse of `to_ours`."""
        back = orientations.ornt_transform(_LPS, orientations.io_orientation(self.affine))
        return orientations.apply_orientation(array.transpose(2, 1, 0), back)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size (D, H, W) in mm of an affine over (d, h, w)."""
    d, h, w = (float(v) for v in affines.voxel_sizes(affine))
    return d, h, w


def lps_grid(shape: tuple[int, int, int]) -> Grid:
    """The grid of files that say nothing of space: (x, y, z) = (W, H, D) voxels of 1 mm.

    Axes and origin are those of the BraTS volumes.
    """
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    return Grid(shape, affine)
