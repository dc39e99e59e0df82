"""The surfaces of masks and the distances between them: HD95, ASSD, surface Dice.

`SurfaceDistances` measures between surface voxels, as MONAI and MedPy do; `Surfels` between pieces
of surface with an area, as BraTS 2023 does.
"""

import functools
import itertools
import time
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

_POINTS = 256
"""Asked of a tree between two looks at the clock."""

_TRANSFORM = 6e-8
"""Seconds a voxel that a distance transform takes, about."""

_TREE = 2e-7
"""Seconds a point that building a tree takes, about."""


def nearest_distances(
    points: np.ndarray,
    others: np.ndarray,
    spacing: tuple[float, float, float],
    patience: float = 0.5,
) -> np.ndarray:
    """Return the distance in mm, float64 (N,), of N points to the nearest of M others.

    points, others: indices (N, 3), (M, 3) of a grid whose steps are `spacing` mm; M at least 1
    patience:       for how many times as long as a distance transform of the box a tree is asked

    A k-d tree is fast for surfaces that lie near each other, whatever the box around them, and a
    hundred times slower for some that are far apart. So it is asked first; when its time is up, a
    transform, which takes the same time for all, does the rest.
    """
    start = np.minimum(points.min(0, initial=others[0].min()), others.min(0))
    points, others = points - start, others - start
    grid = np.zeros(np.maximum(points.max(0, initial=0), others.max(0)) + 1, bool)
    grid[tuple(others.T)] = True
    distances = np.zeros(len(points))
    apart = np.flatnonzero(~grid[tuple(points.T)])
    budget = _TRANSFORM * grid.size * patience
    done, deadline = 0, time.thread_time() + budget
    if len(apart) and _TREE * len(others) < budget:
        # A balanced tree takes longer to build than it saves for one question per point.
        scale = np.asarray(spacing)
        tree = KDTree(others * scale, leafsize=32, balanced_tree=False, compact_nodes=False)
        while done < len(apart) and time.thread_time() < deadline:
            some = apart[done : done + _POINTS]
            distances[some] = tree.query(points[some] * scale)[0]
            done += len(some)
    if done < len(apart):
        rest = apart[done:]
        # Distances of all voxels would take three times as long as the nearest voxel of each.
        nearest = ndimage.distance_transform_edt(
            ~grid, sampling=spacing, return_distances=False, return_indices=True
        )
        away = nearest[(slice(None), *points[rest].T)].T - points[rest]
        distances[rest] = np.sqrt(((away * np.asarray(spacing)) ** 2).sum(1))
    return distances


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a boolean mask (D, H, W) that have a face neighbour outside it: the mask minus its
    erosion, as in MONAI and MedPy.

    Beyond the volume is outside. An axis of one voxel is none: the surface of a slice (1, H, W) is
    its contour, as these two find it in a picture (H, W).
    """
    if 1 in mask.shape:
        wide = tuple(side for side in mask.shape if side > 1)
        flat = mask.reshape(wide or (1,))
        return (flat & ~ndimage.binary_erosion(flat)).reshape(mask.shape)
    return mask & ~ndimage.binary_erosion(mask)


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
        """Measure boolean masks (D, H, W) with voxels in both, at a spacing in mm.

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


_CORNERS = tuple(itertools.product((0, 1), repeat=3))


@functools.lru_cache(maxsize=16)
def surfel_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """Area in mm^2 of the marching-cubes surface (Lorensen and Cline 1987) for each of 256 ways in
    which a cube of 2 x 2 x 2 voxels can be filled, float64 (256,).

    spacing: mm (D, H, W). Bit 4 d + 2 h + w of the index is the voxel at (d, h, w).

    Sums of triangles, each edge cut in its middle; the fewer voxels, inside or outside, are parted
    where they share no edge of the cube. This is the table of DeepMind's surface-distance package,
    which BraTS 2023 uses, made anew: all 256 areas agree.
    """
    depth, height, width = spacing
    faces = np.array([height * width, depth * width, depth * height])
    areas = np.zeros(256)
    for code in range(256):
        inside = [corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1]
        outside = [corner for corner in _CORNERS if corner not in inside]
        normals = [n for part in _parts(min(inside, outside, key=len)) for n in _normals(part)]
        areas[code] = sum(float(np.linalg.norm(normal * faces)) for normal in normals) / 8
    areas.flags.writeable = False
    return areas


Corner = tuple[int, ...]


def _axis(one: Corner, other: Corner) -> int | None:
    """Return the axis of the cube's edge between two corners, or None where there is none."""
    axes = [axis for axis in range(3) if one[axis] != other[axis]]
    return axes[0] if len(axes) == 1 else None


def _parts(corners: list[Corner]) -> list[list[Corner]]:
    """Return the corners in groups that are joined by edges of the cube."""
    left, parts = list(corners), []
    while left:
        part = [left.pop()]
        for corner in part:
            joined = [other for other in left if _axis(corner, other) is not None]
            part += joined
            left = [other for other in left if other not in joined]
        parts.append(part)
    return parts


def _normals(part: list[Corner]) -> np.ndarray:
    """Normals (triangles, 3) around one to four joined corners, without signs: their lengths are
    the areas in a unit cube, in eighths."""
    edges = [
        (one, other, axis)
        for one, other in itertools.combinations(part, 2)
        if (axis := _axis(one, other)) is not None
    ]
    along = [axis for *_, axis in edges]
    unit, one = np.eye(3), np.ones(3)
    if len(part) == 1:
        return np.array([one])
    if len(part) == 2:
        return np.array([one - unit[along[0]]] * 2) * 2
    if len(part) == 3:
        return np.array([4 * (one - unit[along].sum(0)), 2 * one, one])
    if len(edges) == 4:
        return np.array([one - unit[sorted(set(along))].sum(0)] * 2) * 4
    ends = [[one, other].count(corner) for corner in part for one, other, _ in edges]
    degree = np.array(ends).reshape(len(part), len(edges))
    if degree.sum(1).max() == 3:
        return np.array([one, one, 2 * one, 2 * one])
    # A path: both voxels of its middle edge have two neighbours.
    tips = [
        axis
        for axis, column in zip(along, degree.T, strict=True)
        if (degree.sum(1)[column > 0] == 1).any()
    ]
    return np.array([one, 3 * one, *(2 * (one - unit[tip]) for tip in tips)])


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
        """Find the surfels of a non-empty boolean mask (D, H, W), cut out of a volume at `box`.

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
