"""`<case>_views.png`: three planes through the tumour's centre."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.evaluation.figures.drawing import legend, save, show_slice, show_tumour
from kerasseg.records.schema import StoredCase

_PLANES = (("axial", 0, False), ("coronal", 1, True), ("sagittal", 2, True))
"""Name, axis it cuts, and whether rows must be turned so that the crown of the head is up."""


_LEAST_DEPTH = 0.25
"""Of the height, from which planes across the slices show something. Pictures have less, and
mostly LGG's stacks, too: their files do not say how far apart the slices lie."""


def has_depth(stored: StoredCase) -> bool:
    """Whether a case is thick enough for three planes."""
    depth, height = (
        n * mm for n, mm in zip(stored.full_shape[:2], stored.case.spacing[:2], strict=True)
    )
    return stored.full_shape[0] > 1 and depth >= _LEAST_DEPTH * height


def draw_views(
    stored: StoredCase, prediction: np.ndarray, target: str, title: str, path: Path
) -> None:
    """Axial, coronal and sagittal planes through the tumour voxel nearest to the tumour's centre.

    Rows: image alone, truth, prediction. `prediction` (D, H, W) holds labels of the stored box, as
    `targets.masks_to_label` gives them; the planes are numbered as in the whole volume.
    """
    case = stored.case
    assert case.label is not None
    names = list(case.modalities)
    modality = anatomy.T1CE if anatomy.T1CE in names else names[0]
    image = case.image[..., names.index(modality)]
    centre = _centre(case.label if case.label.any() else prediction)
    rows = (
        (anatomy.MODALITY_TITLES.get(modality, modality), None),
        ("truth", case.label),
        ("prediction", prediction),
    )
    figure = Figure(figsize=(8.4, 9.2), layout=ConstrainedLayoutEngine(rect=(0, 0.04, 1, 0.96)))
    axes = figure.subplots(len(rows), len(_PLANES))
    for column, (plane, axis, upwards) in enumerate(_PLANES):
        heights = [s for a, s in enumerate(case.spacing) if a != axis]
        aspect = heights[0] / heights[1]
        for row, (name, label) in enumerate(rows):
            panel = axes[row, column]
            heading = f"{plane} {centre[axis] + stored.offset[axis]}" if row == 0 else ""
            show_slice(panel, _plane(image, axis, centre, upwards), heading, aspect)
            if label is not None:
                show_tumour(panel, _plane(label, axis, centre, upwards), target, aspect)
            if column == 0:
                panel.set_ylabel(name)
    figure.suptitle(title, fontsize=11)
    legend(figure, target)
    save(figure, path)


def _centre(label: np.ndarray) -> tuple[int, ...]:
    """The labelled voxel nearest to the centre of mass; the middle where nothing is labelled."""
    if not label.any():
        return tuple(n // 2 for n in label.shape)
    mass = np.array(ndimage.center_of_mass(label > 0))
    voxels = np.argwhere(label > 0)
    nearest = voxels[((voxels - mass) ** 2).sum(axis=1).argmin()]
    return tuple(int(v) for v in nearest)


def _plane(volume: np.ndarray, axis: int, centre: tuple[int, ...], upwards: bool) -> np.ndarray:
    plane = volume.take(centre[axis], axis=axis)
    return plane[::-1] if upwards else plane
