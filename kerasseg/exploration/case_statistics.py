"""`CaseStatistics`: one case in numbers, small enough to be sent between processes."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.datasets.case import Box, Case
from kerasseg.datasets.nifti_source import bounding_box
from kerasseg.exploration.intensities import Intensities, intensities_of
from kerasseg.records.normalise import brain_mask

HEIGHT_BINS = 50
"""Bins of the relative height in the brain, from its lowest slice to its highest."""

TUMOUR = "tumour"
"""The union of all classes."""

_CORNERS_TOUCH = np.ones((3, 3, 3))


@dataclass(frozen=True)
class CaseStatistics:
    """One case. Without a segmentation what it would have told is None or empty.

    shape:        (D, H, W); spacing: (D, H, W) in mm
    brain_voxels: voxels with a value other than 0 in any modality; brain_slices: axial slices
                  from the lowest to the highest of them
    voxels:       class -> labelled voxels
    components:   parts of the tumour that touch nowhere, not even at a corner
    centre:       centre of mass of the tumour in the brain's box, 0..1 along D, H, W
    presence:     class, and `TUMOUR` -> (50,) share of the axial slices that have it, by height
    intensities:  modality -> its distribution
    """

    case_id: str
    patient_id: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    brain_voxels: int
    brain_slices: int
    intensities: dict[str, Intensities]
    voxels: dict[str, int] | None = None
    components: int | None = None
    centre: tuple[float, float, float] | None = None
    presence: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def tumour_voxels(self) -> int | None:
        """Voxels of any class."""
        return None if self.voxels is None else sum(self.voxels.values())

    @property
    def millilitres(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000


def measure(case: Case) -> CaseStatistics:
    """Everything that the page shows of one case. Memory: one channel more than the case."""
    box, brain = brain_mask(case.image, known=case.box)
    depth, height, width, _ = case.image.shape
    intensities = {}
    for channel, modality in enumerate(case.modalities):
        values = case.image[(*box, channel)]
        intensities[modality] = intensities_of(values[values != 0])
    statistics = CaseStatistics(
        case_id=case.case_id,
        patient_id=case.patient_id,
        shape=(depth, height, width),
        spacing=case.spacing,
        brain_voxels=int(np.count_nonzero(brain)),
        brain_slices=brain.shape[0],
        intensities=intensities,
    )
    if case.label is None:
        return statistics
    tumour_box = bounding_box(case.label > 0)
    tumour = case.label[tumour_box] > 0
    classes = anatomy.CLASSES[case.classes]
    return replace(
        statistics,
        voxels={
            name: int(np.count_nonzero(case.label[tumour_box] == class_id))
            for name, class_id in classes.items()
        },
        components=int(ndimage.label(tumour, _CORNERS_TOUCH)[1]),
        centre=_centre(tumour, tumour_box, box),
        presence={name: _presence(case.label[box] == i) for name, i in classes.items()}
        | {TUMOUR: _presence(case.label[box] > 0)},
    )


def _centre(tumour: np.ndarray, tumour_box: Box, brain: Box) -> tuple[float, float, float] | None:
    if not tumour.any():
        return None
    # A voxel's centre lies half a voxel behind its corner.
    d, h, w = (
        float((mass + 0.5 + own.start - outer.start) / (outer.stop - outer.start))
        for mass, own, outer in zip(ndimage.center_of_mass(tumour), tumour_box, brain, strict=True)
    )
    return d, h, w


def _presence(mask: np.ndarray) -> np.ndarray:
    """Mask (D, H, W) -> (50,) share of each bin of height that lies in slices with any voxel."""
    slices = mask.any(axis=(1, 2))
    if not slices.size:
        return np.zeros(HEIGHT_BINS)
    below = np.concatenate([[0], np.cumsum(slices)])
    edges = np.linspace(0, slices.size, HEIGHT_BINS + 1)
    return np.diff(np.interp(edges, np.arange(slices.size + 1), below)) / (edges[1] - edges[0])
