"""Area of the surface through a cube of eight voxel centres."""

import functools
import itertools

import numpy as np

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
    """The axis of the cube's edge between two corners; None where there is none."""
    axes = [axis for axis in range(3) if one[axis] != other[axis]]
    return axes[0] if len(axes) == 1 else None


def _parts(corners: list[Corner]) -> list[list[Corner]]:
    """Corners in groups that are joined by edges of the cube."""
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
