"""The three planes through a tumour, cut out of a volume."""

from dataclasses import dataclass

import numpy as np

from kerasseg.metrics.bounding_box import bounding_box

_MARGIN = 3
"""Voxels around what is shown."""


@dataclass(frozen=True)
class Plane:
    """A plane of the volume: its name with the slice's number, the axis that it cuts, the slice,
    the part of it that is shown, and the height of a pixel over its width."""

    title: str
    axis: int
    index: int
    part: tuple[slice, slice]
    aspect: float

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """(D, H, W, …) -> (h, w, …), the crown of the head up."""
        plane = volume.take(self.index, axis=self.axis)[self.part]
        return plane if self.axis == 0 else plane[::-1]


def planes_through(
    tumour: np.ndarray, shown: np.ndarray, spacing: tuple[float, float, float]
) -> list[Plane]:
    """Axial, coronal and sagittal, each the slice with most of the mask `tumour` (D, H, W), the
    middle one without any; of a picture the axial one alone. Around the mask `shown`, such as the
    brain."""
    box = bounding_box(shown) if shown.any() else tuple(slice(0, n) for n in shown.shape)
    box = tuple(
        slice(max(part.start - _MARGIN, 0), min(part.stop + _MARGIN, n))
        for part, n in zip(box, shown.shape, strict=True)
    )
    planes = []
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        rows, columns = (a for a in range(3) if a != axis)
        areas = np.count_nonzero(tumour, axis=(rows, columns))
        index = int(areas.argmax()) if areas.any() else tumour.shape[axis] // 2
        part = (box[rows], box[columns])
        planes.append(Plane(f"{name} {index}", axis, index, part, spacing[rows] / spacing[columns]))
        if tumour.shape[0] == 1:
            break
    return planes
