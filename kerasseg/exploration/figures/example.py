"""`example_<name>.png`: one case, every modality and three planes."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.evaluation.figures.drawing import legend, show_slice, show_tumour
from kerasseg.records.normalise import brain_mask

_PLANES = (("axial", 0), ("coronal", 1), ("sagittal", 2))
_TARGETS = {"subregions": "subregions", "tumour": "binary"}
"""Classes of a data set -> the target whose channels have their colours."""

_STRETCHED = 0.8
"""Height over width of a plane whose voxels' height nobody knows."""


def draw_example(case: Case, title: str, *, knows_space: bool) -> Figure:
    """Above: every modality in the axial slice with most tumour. Below: that slice, and the
    coronal and sagittal ones with most, with the segmentation over FLAIR or the first modality.

    The middle of the brain where there is no tumour; one row where there is one slice only.
    """
    box, _ = brain_mask(case.image, case.label, case.box)
    image = case.image[box]
    label = np.zeros(image.shape[:3], np.uint8) if case.label is None else case.label[box]
    places = [_place(label, axis) for axis, _ in enumerate(label.shape)]
    target = _TARGETS[case.classes]
    channels = image.shape[-1]
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    shown = [anatomy.MODALITY_TITLES.get(m, m) for m in names]

    def draw(axes: Axes, title: str, axis: int, channel: int, *, overlay: bool) -> None:
        aspect = _aspect(case, label.shape, axis, knows_space)
        show_slice(axes, _slice(image[..., channel], axis, places[axis]), title, aspect)
        if overlay:
            show_tumour(axes, _slice(label, axis, places[axis]), target, aspect)

    flat = label.shape[0] == 1
    layout = ConstrainedLayoutEngine(
        rect=(0, 0.05, 1, 0.95) if case.label is not None else (0, 0, 1, 1)
    )
    if flat:
        figure = Figure(figsize=(3.2 * (channels + 1), 4.2), layout=layout)
        *above, panel = figure.subplots(1, channels + 1)
        draw(panel, "segmentation", 0, base, overlay=True)
    else:
        figure = Figure(figsize=(2.9 * max(channels, len(_PLANES)), 7.4), layout=layout)
        cells = figure.add_gridspec(2, columns := math.lcm(channels, len(_PLANES)))
        wide, step = columns // channels, columns // len(_PLANES)
        above = [figure.add_subplot(cells[0, i * wide : (i + 1) * wide]) for i in range(channels)]
        for i, (plane, axis) in enumerate(_PLANES):
            panel = figure.add_subplot(cells[1, i * step : (i + 1) * step])
            draw(panel, f"{plane} {places[axis] + box[axis].start}", axis, base, overlay=True)
    for channel, axes in enumerate(above):
        draw(axes, shown[channel], 0, channel, overlay=False)
    figure.suptitle(title, fontsize=12)
    if case.label is not None:
        legend(figure, target)
    return figure


def _place(label: np.ndarray, axis: int) -> int:
    """The slice with most tumour along an axis; the middle one where there is none."""
    areas = np.count_nonzero(label, axis=tuple(a for a in range(3) if a != axis))
    return int(areas.argmax()) if areas.any() else label.shape[axis] // 2


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    plane = volume.take(index, axis=axis)
    return plane if axis == 0 else plane[::-1]  # the crown of the head is up


def _aspect(case: Case, shape: tuple[int, ...], axis: int, knows_space: bool) -> float:
    rows, columns = (a for a in range(3) if a != axis)
    if not knows_space and axis != 0:
        return _STRETCHED * shape[columns] / shape[rows]
    return case.spacing[rows] / case.spacing[columns]
