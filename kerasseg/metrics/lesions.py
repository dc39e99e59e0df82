"""Lesions, the connected components of a mask: found, missed, and the scores of BraTS 2023."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.datasets.case import bounding_box
from kerasseg.metrics.surface import Surfels

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
        """Return how many components have a voxel in another boolean mask of the same shape."""
        touched = np.zeros(self.number + 1, bool)
        touched[self.labels[other]] = True
        return int(np.count_nonzero(touched[1:]))


@dataclass(frozen=True)
class LesionCounts:
    """Numbers of lesions, which are connected components (26 neighbours) of a mask.

    found:    of the truth, with at least one predicted voxel (true positives)
    invented: of the prediction, without a voxel of the truth (false positives)
    missed:   of the truth, without a predicted voxel (false negatives)
    """

    found: int
    invented: int
    missed: int

    @classmethod
    def count(cls, truth: Components, prediction: Components) -> "LesionCounts":
        """Compare the components of two masks of one shape."""
        found = truth.touched_by(prediction.mask)
        right = prediction.touched_by(truth.mask)
        return cls(found, prediction.number - right, truth.number - found)


Box = tuple[slice, ...]


@dataclass(frozen=True)
class LesionSettings:
    """Parameters of `lesion_wise`; the defaults are those of adult glioma.

    dilation: voxels by which the truth is dilated, so that near pieces count as one lesion
    smallest: mm^3 that a lesion of the truth must exceed to be scored
    penalty:  HD95 in mm of a lesion that was missed or invented
    """

    dilation: int = anatomy.BRATS_LESIONS["GLI"][0]
    smallest: float = anatomy.BRATS_LESIONS["GLI"][1]
    penalty: float = anatomy.BRATS_LESION_DISTANCE

    def __post_init__(self) -> None:
        if self.dilation < 1 or self.smallest < 0 or self.penalty < 0:
            raise ValueError(f"{self}: dilation must be 1 or more, the others 0 or more")

    @classmethod
    def of_challenge(cls, name: str) -> "LesionSettings":
        """Return the settings of a challenge of BraTS 2023; ValueError names the known ones."""
        if name not in anatomy.BRATS_LESIONS:
            known = ", ".join(anatomy.BRATS_LESIONS)
            raise ValueError(f"unknown challenge {name!r} of BraTS 2023: one of {known}")
        return cls(*anatomy.BRATS_LESIONS[name])


@dataclass(frozen=True)
class Lesion:
    """A lesion of the truth: its mm^3, whether it exceeds `smallest`, how many components of the
    prediction belong to it, its Dice and its HD95 in mm."""

    volume: float
    scored: bool
    matched: int
    dice: float
    hd95: float


@dataclass(frozen=True)
class LesionWise:
    """Means over the scored lesions of the truth and the invented ones; lesions of the truth that
    were found or missed, of the scored ones; and every lesion of the truth."""

    dice: float
    hd95: float
    found: int
    invented: int
    missed: int
    lesions: tuple[Lesion, ...]


def lesion_wise(
    truth: np.ndarray,
    prediction: Components,
    spacing: tuple[float, float, float],
    settings: LesionSettings | None = None,
) -> LesionWise:
    """Score predicted components against a boolean mask (D, H, W) at a spacing in mm.

    As in `eval.py` of github.com/rachitsaluja/BraTS-2023-Metrics, the organisers' code (commit
    0e272e6):

    - Voxels of the truth are one lesion where they are connected (26 neighbours) after dilating the
      truth `dilation` times by the 18 nearest voxels.
    - Every component of the prediction that meets the dilated lesion belongs to it, whole; to
      several lesions if it meets several.
    - Dice and HD95 (by surfels, see `Surfels.hd95`) compare these components with the undilated
      lesion. A lesion without any has Dice 0 and HD95 `penalty`.
    - Lesions of up to `smallest` are left out, but what belongs to them is not invented.
    - A component that belongs to no lesion is invented: Dice 0, HD95 `penalty`, however small.
    - The scores are means over the lesions and the invented. Of nothing: Dice 1, HD95 0.
    """
    settings = settings or LesionSettings()
    lesions: tuple[Lesion, ...] = ()
    belong = np.zeros(prediction.number + 1, bool)
    if truth.any():
        box = _widened(bounding_box(truth), settings.dilation, truth.shape)
        eighteen = ndimage.generate_binary_structure(3, 2)
        # Beyond the volume's edge, or that of a box, dilation joins nothing that it does not join
        # within: nearer to the lesions there is always a voxel that they reach too.
        dilated = ndimage.binary_dilation(truth[box], eighteen, iterations=settings.dilation)
        places, number = ndimage.label(dilated, NEIGHBOURS)
        met = np.zeros((number + 1, prediction.number + 1), bool)
        predicted = prediction.mask[box]
        met[places[predicted], prediction.labels[box][predicted]] = True
        belong = np.logical_or.reduce(met[1:], axis=0)
        lesions = _lesions(places * truth[box], box, prediction, met[1:], spacing, settings)
    invented = prediction.number - int(np.count_nonzero(belong))
    scored = [lesion for lesion in lesions if lesion.scored]
    found = sum(lesion.matched > 0 for lesion in scored)
    dice, hd95, total = 1.0, 0.0, len(scored) + invented
    if total:
        dice = sum(lesion.dice for lesion in scored) / total
        hd95 = (sum(lesion.hd95 for lesion in scored) + invented * settings.penalty) / total
    return LesionWise(dice, hd95, found, invented, len(scored) - found, lesions)


def _lesions(
    labels: np.ndarray,
    box: Box,
    prediction: Components,
    met: np.ndarray,
    spacing: tuple[float, float, float],
    settings: LesionSettings,
) -> tuple[Lesion, ...]:
    """Score the lesions 1 to n of `labels`; `met` (n, components + 1) says what belongs to each."""
    component_boxes = ndimage.find_objects(prediction.labels, prediction.number)
    # Several lesions may have the same components: their voxels and their surface.
    known: dict[bytes, tuple[int, Surfels]] = {}
    lesions = []
    for number, (inside, belongs) in enumerate(
        zip(ndimage.find_objects(labels, len(met)), met, strict=True), start=1
    ):
        mask = labels[inside] == number
        place = _moved(inside, box)
        voxels = int(np.count_nonzero(mask))
        volume = float(voxels * np.prod(spacing))
        dice, hd95 = 0.0, settings.penalty
        if belongs.any():
            key = belongs.tobytes()
            if key not in known:
                around = _around([component_boxes[i - 1] for i in np.flatnonzero(belongs)])
                its = belongs[prediction.labels[around]]
                known[key] = int(np.count_nonzero(its)), Surfels.of_mask(its, spacing, around)
            predicted_voxels, predicted_surfels = known[key]
            shared = int(np.count_nonzero(belongs[prediction.labels[place]] & mask))
            dice = 2 * shared / (voxels + predicted_voxels)
            hd95 = Surfels.of_mask(mask, spacing, place).hd95(predicted_surfels)
        matched = int(np.count_nonzero(belongs))
        lesions.append(Lesion(volume, volume > settings.smallest, matched, dice, hd95))
    return tuple(lesions)


def _widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """Return a box with a margin on every side, as far as the volume goes."""
    return tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, size))
        for side, size in zip(box, shape, strict=True)
    )


def _moved(inner: Box, outer: Box) -> Box:
    """Return the place in the volume of a box that lies inside another one."""
    return tuple(
        slice(side.start + frame.start, side.stop + frame.start)
        for side, frame in zip(inner, outer, strict=True)
    )


def _around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all boxes."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
