"""Measurements of a label: volumes, lesions, diameters, and scores against the truth."""

import csv
import io
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.files import spreadsheet_row
from kerasseg.metrics.case_metrics import MetricSettings, case_metrics
from kerasseg.metrics.lesions import Components
from kerasseg.targets import label_to_masks

SCORES = ("dice", "iou", "precision", "recall", "hd95")
_MOST_LESIONS = 50
_CUBIC_MM_PER_ML = 1000.0


@dataclass(frozen=True)
class Lesion:
    """A connected component (26 neighbours) of the whole tumour.

    Attributes:
        volume: mL.
        place: The voxel (d, h, w) of the lesion that is nearest to its centre of mass.
        position: That voxel in scanner RAS coordinates, mm.
        slice: The axial slice with most of it.
        diameter: The longest diameter in that slice, mm.
        across: Its extent at a right angle to that in the slice, mm.
    """

    volume: float
    place: tuple[int, int, int]
    position: tuple[float, float, float]
    slice: int
    diameter: float
    across: float


@dataclass(frozen=True)
class Measures:
    """The measurements of one label.

    Attributes:
        volumes: Class or region -> mL.
        lesions: The largest ones first.
        number: How many lesions there are, also those that are not in `lesions`.
        scores: Class or region -> metric -> value; empty without a truth.
    """

    volumes: dict[str, float]
    lesions: list[Lesion]
    number: int
    scores: dict[str, dict[str, float | None]]

    def as_csv(self) -> str:
        """Return a table with a row for each class or region and each lesion."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["name", "volume_ml", *SCORES, "diameter_mm", "across_mm", "slice"])
        for name, volume in self.volumes.items():
            scores = self.scores.get(name, {})
            writer.writerow(spreadsheet_row([name, volume, *(scores.get(m) for m in SCORES)]))
        blank = [None] * len(SCORES)
        for number, lesion in enumerate(self.lesions, start=1):
            sizes = [lesion.diameter, lesion.across, lesion.slice]
            writer.writerow(spreadsheet_row([f"lesion {number}", lesion.volume, *blank, *sizes]))
        return text.getvalue()


def region_masks(label: np.ndarray, target: str) -> dict[str, np.ndarray]:
    """Return the mask (D, H, W) of every class and region that a target tells apart."""
    if target == "binary":
        return {"tumour": label > 0}
    result: dict[str, np.ndarray] = {}
    for name in ("subregions", "regions"):
        masks = label_to_masks(label, name)
        result |= {c: masks[..., k] for k, c in enumerate(anatomy.TARGETS[name]) if c not in result}
    return result


def measure(label: np.ndarray, case: Case, target: str) -> Measures:
    """Measure a label (D, H, W) of canonical ids, and compare it with the case's truth.

    A truth that does not tell the classes apart is compared with tumour of any kind.
    """
    voxel = math.prod(case.spacing) / _CUBIC_MM_PER_ML
    masks = region_masks(label, target)
    volumes = {name: float(np.count_nonzero(mask) * voxel) for name, mask in masks.items()}
    components = Components.of_mask(label > 0)
    sizes = np.bincount(components.labels.ravel(), minlength=components.number + 1)[1:]
    boxes = ndimage.find_objects(components.labels, components.number)
    largest = np.argsort(-sizes, kind="stable")[:_MOST_LESIONS]
    lesions = [_lesion(components.labels[boxes[i]] == i + 1, boxes[i], case) for i in largest]
    return Measures(volumes, lesions, components.number, _scores(label, masks, case, target))


def _lesion(mask: np.ndarray, box: tuple[slice, ...], case: Case) -> Lesion:
    """Measure a lesion whose mask lies in a box of the volume."""
    first = np.array([part.start for part in box])
    voxels = np.argwhere(mask)
    spacing = np.array(case.spacing)
    middle = voxels.mean(axis=0)
    nearest = voxels[(((voxels - middle) * spacing) ** 2).sum(axis=1).argmin()] + first
    worst = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    diameter, across = _diameters(mask[worst], case.spacing[1:])
    d, h, w = (int(n) for n in nearest)
    x, y, z = (float(v) for v in (case.affine @ [d, h, w, 1])[:3])
    volume = float(len(voxels) * spacing.prod() / _CUBIC_MM_PER_ML)
    return Lesion(volume, (d, h, w), (x, y, z), worst + int(first[0]), diameter, across)


def _diameters(mask: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    """Return the longest diameter of a mask (h, w) and its extent at a right angle, in mm.

    Both reach from outer edge to outer edge of the pixels.
    """
    inside = np.argwhere(mask)
    corners = np.concatenate([inside + corner for corner in np.ndindex(2, 2)]) * spacing
    corners = np.unique(corners, axis=0)
    try:
        corners = corners[ConvexHull(corners).vertices]
    except QhullError:  # never so with the four corners of a pixel, but a size may be tiny
        corners = corners[:500]
    distances = squareform(pdist(corners))
    a, b = np.unravel_index(distances.argmax(), distances.shape)
    along = (corners[b] - corners[a]) / distances[a, b]
    beside = corners @ [-along[1], along[0]]
    return float(distances[a, b]), float(beside.max() - beside.min())


def _scores(
    label: np.ndarray, masks: dict[str, np.ndarray], case: Case, target: str
) -> dict[str, dict[str, float | None]]:
    if case.label is None:
        return {}
    if case.classes == "tumour" and target != "binary":
        masks, truths = {"WT": label > 0}, {"WT": np.asarray(case.label > 0)}
    else:
        truths = region_masks(np.asarray(case.label), target)
    settings = MetricSettings(metrics=SCORES)
    found = {n: case_metrics(truths[n], m, case.spacing, settings).values for n, m in masks.items()}
    return {
        name: {metric: value if math.isfinite(value) else None for metric, value in scores.items()}
        for name, scores in found.items()
    }
