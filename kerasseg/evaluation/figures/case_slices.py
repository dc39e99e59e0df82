"""Axial slices through one tumour."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kerasseg.evaluation.figures.drawing import grey_range, show_contours, show_slice
from kerasseg.evaluation.figures.error_map import error_handles, show_errors
from kerasseg.evaluation.figures.planes import planes_through
from kerasseg.targets import label_to_masks, masks_to_label


def draw_case_slices(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
    columns: int = 6,
) -> Figure:
    """`columns` axial slices evenly through truth and prediction: above the outlines of the truth,
    below the errors. Arguments as of `draw_case_planes`."""
    label = masks_to_label(masks, target)
    wanted = label_to_masks(truth, target)
    if target == "binary":
        truth = (truth > 0).astype(np.uint8)
    tumour = (truth > 0) | (label > 0)
    ground = np.zeros(truth.shape, np.float32) if image is None else image
    shown = (ground != 0) if image is not None else tumour
    plane = planes_through(tumour, shown, spacing)[0]
    held = np.flatnonzero(tumour.any(axis=(1, 2)))
    if not held.size:
        held = np.arange(truth.shape[0])
    number = min(columns, held.size)
    places = held[np.round(np.linspace(0, held.size - 1, number + 2)[1:-1]).astype(int)]
    places = np.unique(places)
    height, width = plane.cut(ground).shape
    side = 2.1
    figure = Figure(
        figsize=(
            max(side * len(places), 6.0),
            2 * side * height * plane.aspect / width + 1.1,
        ),
        layout=ConstrainedLayoutEngine(rect=(0, 0.07, 1, 0.93)),
    )
    panels = figure.subplots(2, len(places), squeeze=False)
    grey = grey_range(ground)
    for column, place in enumerate(places):
        part = (int(place), *plane.part)
        for row in range(2):
            name = f"slice {place}" if row == 0 else ""
            show_slice(panels[row, column], ground[part], name, plane.aspect, grey)
        show_contours(panels[0, column], wanted[part], target)
        show_errors(panels[1, column], truth[part], label[part], plane.aspect)
    panels[0, 0].set_ylabel("truth")
    panels[1, 0].set_ylabel("errors")
    figure.legend(
        handles=error_handles(target), loc="lower center", ncol=4, frameon=False, fontsize=9
    )
    figure.suptitle(title, fontsize=11)
    return figure
