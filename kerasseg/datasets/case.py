"""A case, one scan of one patient: its grid, where it is read from, and cases to be predicted."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from nibabel import affines, orientations

from kerasseg.errors import UserError, printable

_LPS = orientations.axcodes2ornt(("L", "P", "S"))
_REVERSE_AXES = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""Takes (d, h, w, 1) to (x, y, z, 1), for the transposition from file axes to ours."""


@dataclass(frozen=True)
class Header:
    """The place in space by a NIfTI header, for files that are written beside it.

    Programs choose between the two forms in their own ways, so a segmentation lies over its scan
    everywhere only if it has both as the scan has them.

    sform, qform: affines in the file's own unit, as they are stored, even where their code is 0;
                  qform is None if it is no rotation
    zooms:        voxel size (x, y, z) in that unit
    unit:         NIfTI's number for it: 1 is metres, 2 mm, 3 micrometres, 0 unknown
    notes:        contradictions, and what the reader made of them
    """

    sform: np.ndarray
    sform_code: int
    qform: np.ndarray | None
    qform_code: int
    zooms: tuple[float, ...]
    unit: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The grid of a file: shape (x, y, z) and affine, voxel indices -> RAS mm.

    Ours has the axes depth, height, width, which grow to superior, posterior and left: the file's
    axes permuted and flipped, nothing interpolated. An oblique file stays oblique. `header` is
    that of a NIfTI file, None for anything else.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: Header | None = None

    @cached_property
    def _turn(self) -> np.ndarray:
        return orientations.ornt_transform(orientations.io_orientation(self.affine), _LPS)

    @property
    def our_affine(self) -> np.ndarray:
        """The affine that takes array indices (d, h, w, 1) of our axes to RAS mm."""
        turned = self.affine @ orientations.inv_ornt_aff(self._turn, self.shape)
        return turned @ _REVERSE_AXES

    @property
    def our_shape(self) -> tuple[int, int, int]:
        """The shape (D, H, W) of the volume in our axes."""
        # An array that takes no memory goes through the permutation.
        d, h, w = self.to_ours(np.broadcast_to(np.uint8(0), self.shape)).shape
        return d, h, w

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (D, H, W) in mm."""
        return spacing_of(self.our_affine)

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Return an array (x, y, z) of the file as a view (D, H, W)."""
        return orientations.apply_orientation(array, self._turn).transpose(2, 1, 0)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Return an array (D, H, W) in the axes (x, y, z) of the file; inverts `to_ours`."""
        back = orientations.ornt_transform(_LPS, orientations.io_orientation(self.affine))
        return orientations.apply_orientation(array.transpose(2, 1, 0), back)


def bring_to(first: Grid, array: np.ndarray, grid: Grid) -> tuple[np.ndarray, float]:
    """Bring an array (x, y, z) of `grid` to the axes of a case whose first file has grid `first`.

    The axes of the two files may be turned against each other, as programs store them in different
    orders: what counts is the place of a voxel in space.

    Returns a view (D, H, W), and by how many mm its corners miss those of the first file:
    infinitely many if it has another shape.
    """
    as_stored = turned = math.inf
    if first.shape == grid.shape:
        as_stored = corner_distance(first.affine, grid.affine, first.shape)
    if first.our_shape == grid.our_shape:
        turned = corner_distance(first.our_affine, grid.our_affine, first.our_shape)
    # The nearest axis of an oblique file may be another one after a rounding.
    if as_stored <= turned:
        return first.to_ours(array), as_stored
    return grid.to_ours(array), turned


def corner_distance(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the same corners of two grids of one shape, in the
    affines' unit."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], (1,))).reshape(4, -1)
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the voxel size (D, H, W) in mm of an affine over (d, h, w)."""
    d, h, w = affines.voxel_sizes(affine)
    return in_float32((d, h, w))


def in_float32(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Return a voxel size (D, H, W) in the precision of headers, records and requests: float32.

    0.9 mm of a header and 0.9 of an array differ in the eighth digit. That decides ties: how many
    voxels a new grid has, and what of it is air.
    """
    d, h, w = (float(np.float32(size)) for size in spacing)
    return d, h, w


def lps_grid(shape: tuple[int, int, int]) -> Grid:
    """Return the grid of files that say nothing about space: (W, H, D) voxels of 1 mm.

    Axes and origin are those of the BraTS volumes.
    """
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    return Grid(shape, affine)


Box = tuple[slice, slice, slice]
"""A part (D, H, W) of a volume."""


def bounding_box(mask: np.ndarray) -> Box:
    """Return the smallest box that holds every true voxel of a boolean mask (D, H, W).

    Where the mask is empty so is the box: (0:0, 0:0, 0:0).
    """
    # Reduced over contiguous axes first: an order of magnitude faster on large volumes.
    planes = np.any(mask, axis=2)
    hits = np.any(planes, axis=1), np.any(planes, axis=0), np.any(mask, axis=(0, 1))
    places = [np.flatnonzero(line) for line in hits]
    d, h, w = (slice(int(p[0]), int(p[-1]) + 1) if p.size else slice(0, 0) for p in places)
    return d, h, w


def faces_of(volume: np.ndarray) -> np.ndarray:
    """Return the outermost voxels of a volume or a picture, (n,), those at edges several times.

    Axes of one or two voxels have no outside.
    """
    long = [axis for axis, length in enumerate(volume.shape) if length > 2]
    sides = [volume.take(end, axis).ravel() for axis in long for end in (0, -1)]
    return np.concatenate(sides) if sides else volume[:0].ravel()


def air_value(volume: np.ndarray) -> float | None:
    """Return the value of the air around the head, or None where there is no such value.

    It is the value that at least half of the outermost voxels have, to the last bit: neither a
    corner with a mark in it nor a head that reaches the edge of the field of view hides it.
    """
    faces = faces_of(volume)
    if not faces.size:
        return None
    if 2 * np.count_nonzero(faces) <= faces.size:
        return 0.0  # as in nearly every skull-stripped scan, without a sort
    values, counts = np.unique(faces, return_counts=True)
    place = int(counts.argmax())
    if 2 * counts[place] < faces.size or not np.isfinite(values[place]):
        return None
    return float(values[place])


def with_zero_air(volume: np.ndarray, modality: str) -> tuple[np.ndarray, list[str]]:
    """Return a volume (any axes) in which air is exactly 0, and a note if it was not.

    Scans that were normalised as a whole have a number other than 0 there; everything that looks
    for the brain, and the z-score, would take their air for tissue. Where such a scan was padded or
    turned afterwards there is exact 0 outside of its air, which becomes air, too. A constant scan
    has no air.
    """
    air = air_value(volume)
    if not air or (volume == air).all():
        return volume, []
    from scipy import ndimage  # few scans are like this

    shifted = volume.astype(np.float32) - np.float32(air)
    padding, _ = ndimage.label(volume == 0)
    outside = np.unique(faces_of(padding))
    shifted[np.isin(padding, outside[outside > 0])] = 0
    return shifted, [f"air is {air:g} in {modality}, and was made 0"]


@dataclass
class Case:
    """One scan in memory, axes (depth, height, width) = (superior, posterior, left) growing.

    image:      (D, H, W, C) float32, raw intensities
    label:      (D, H, W) uint8 canonical ids, or None where unknown
    spacing:    (D, H, W) voxel size in mm
    affine:     4 x 4, array indices (d, h, w, 1) -> scanner RAS coordinates in mm
    modalities: the C channels in order
    grid:       the grid of the input's own files, for the way back
    classes:    what the label tells apart, a key of `anatomy.CLASSES`
    attributes: what else the data set knows of the patient or the scan, such as LGG's data.csv
    notes:      oddities that the reader could deal with, such as slices without air
    enhancing_id: which of 3 and 4 the label's file has, where only that tells the year of BraTS
    intensities: what they are, as `config.layouts` has it; empty where nobody knows
    box:        a box outside which the image is known to be 0; None where it was not looked for
    signal:     (d, h, w) bool of that box, where any channel is not 0; None likewise
    """

    case_id: str
    patient_id: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    affine: np.ndarray
    modalities: tuple[str, ...]
    grid: Grid
    classes: str = "subregions"
    attributes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    enhancing_id: int | None = None
    intensities: str = ""
    box: Box | None = None
    signal: np.ndarray | None = None


class CaseSource(Protocol):
    """A case that can be loaded.

    A source is small and can be pickled, so that it goes to worker processes. `files` are the raw
    files; a generated case has none.
    """

    @property
    def case_id(self) -> str: ...

    @property
    def patient_id(self) -> str: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def load(self) -> Case:
        """Read the case. Raises `UserError` naming the file that is damaged."""
        ...


@dataclass(frozen=True)
class BrokenSource:
    """A case that is known to be wrong before any of its files is opened.

    It takes its place among the others, so that one bad case does not hide them. `load` raises
    `UserError` with the `reason`.
    """

    case_id: str
    patient_id: str
    files: tuple[Path, ...]
    reason: str

    def load(self) -> Case:
        raise UserError(self.reason)


@dataclass(frozen=True)
class Input:
    """A case that is to be predicted; its source has no segmentation.

    picture:   it is a single picture, so its mask is written as a picture, too
    label_ids: canonical id -> the data set's own, where the files tell; else None
    """

    source: CaseSource
    picture: bool = False
    label_ids: Mapping[int, int] | None = None


def broken(case_id: str, files: tuple, reason: str) -> Input:
    """Return an input that is known to be wrong before it is opened."""
    return Input(BrokenSource(case_id, case_id, files, reason))


def inverse(label_map: Mapping[int, int]) -> dict[int, int]:
    """Invert a label map; where several own ids have one canonical id, the smallest is taken."""
    return {label_map[own]: own for own in sorted(label_map, reverse=True)}


def unique_sources(sources: Sequence[CaseSource]) -> list[CaseSource]:
    """Sort sources by case id; several with the same id become one broken source.

    The ids are text that can be printed and stored, whatever bytes the names of the files hold.
    """
    by_id: dict[str, list[CaseSource]] = {}
    for source in map(with_printable_ids, sources):
        by_id.setdefault(source.case_id, []).append(source)
    result: list[CaseSource] = []
    for case_id, same in sorted(by_id.items(), key=lambda item: _natural(item[0])):
        if len(same) == 1:
            result.append(same[0])
            continue
        places = [str(source.files[0].parent) for source in same]
        if len(set(places)) < len(places):
            places = [str(source.files[0]) for source in same]
        files = tuple(path for source in same for path in source.files)
        reason = f"{case_id} is the name of {len(same)} cases, in {' and '.join(places)}: "
        reason += "rename or remove all but one."
        result.append(BrokenSource(case_id, same[0].patient_id, files, reason))
    return result


def with_printable_ids(source: Any) -> CaseSource:
    """Return a source whose ids can be printed and stored, whatever its files are called."""
    case_id, patient_id = printable(source.case_id), printable(source.patient_id)
    if (case_id, patient_id) == (source.case_id, source.patient_id):
        found: CaseSource = source
        return found
    return dataclasses.replace(source, case_id=case_id, patient_id=patient_id)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sorting key under which volume_10 comes after volume_9."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
