"""`Case`: one scan of one patient, whatever files it came from."""

from dataclasses import dataclass, field

import numpy as np

from kerasseg.datasets.grid import Grid

Box = tuple[slice, slice, slice]


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
    notes:      what a reader saw and could live with, such as slices without air
    box:        a box outside which the image is known to be 0, so that nobody has to look
    signal:     (d, h, w) bool of that box: where any channel is not 0; None where nobody looked
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
    box: Box | None = None
    signal: np.ndarray | None = None
