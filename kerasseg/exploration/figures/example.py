"""`example_<name>.png`: one case, every modality and three planes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.evaluation.figures.drawing import legend, show_slice, show_tumour
from kerasseg.records.normalise import brain_mask

_PLANES = (("axial", 0), ("coronal", 1), ("sagittal", 2))
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
    target = _target(case.classes)
    channels = image.shape[-1]
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    flat = label.shape[0] == 1

    def draw(axes: Axes, plane: str, axis: int, channel: int, *, overlay: bool) -> None:
        scan, truth = image[..., channel], label
        aspect = _aspect(case, label.shape, axis, knows_space)
        show_slice(axes, _slice(scan, axis, places[axis]), plane, aspect)
        if overlay and case.label is not None:
            show_tumour(axes, _slice(truth, axis, places[axis]), target, aspect)

    columns = channels + 1 if flat else max(channels, 3)
    figure = Figure(figsize=(max(3.0 * columns, 6), 4.1 if flat else 7.4), layout="constrained")
    rows = np.ravel(figure.subfigures(1 if flat else 2, 1))
    above = np.ravel(rows[0].subplots(1, channels + 1 if flat else channels))
    for channel, modality in enumerate(case.modalities):
        shown = anatomy.MODALITY_TITLES.get(modality, modality)
        draw(above[channel], shown, 0, channel, overlay=False)
    planes = _PLANES[:1] if flat else _PLANES
    below = above[channels:] if flat else rows[1].subplots(1, 3)
    for axes, (plane, axis) in zip(below, planes, strict=True):
        heading = f"{plane} {places[axis] + box[axis].start}"
        if flat:
            heading = "no segmentation" if case.label is None else "segmentation"
        draw(axes, heading, axis, base, overlay=True)
    figure.suptitle(title, fontsize=12)
    if case.label is not None:
        legend(figure, target)
    return figure


def _target(classes: str) -> str:
    """The target whose channels are the classes, for their colours."""
    wanted = set(anatomy.CLASSES[classes])
    return next(t for t, channels in anatomy.TARGETS.items() if set(channels) == wanted)


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
