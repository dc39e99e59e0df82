"""One case in three planes: truth, prediction, errors."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from kerasseg import anatomy
from kerasseg.evaluation.figures.drawing import show_contours, show_slice
from kerasseg.evaluation.figures.error_map import error_handles, show_errors
from kerasseg.evaluation.figures.planes import planes_through
from kerasseg.targets import label_to_masks, masks_to_label

_ROWS = ("truth", "prediction", "errors")
_WIDEST = 1.6
"""Widths of a panel in its heights."""


def draw_case_planes(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
) -> Figure:
    """Rows: outlines of the truth, outlines of the prediction, error map; a column per plane.

    image: one modality (D, H, W), air 0; None: a dark ground
    truth: labels (D, H, W); masks: (D, H, W, K) of `target`; spacing: mm
    """
    tumour = truth > 0 if truth.any() else masks_to_label(masks, target) > 0
    ground = np.full(truth.shape, 0.0, np.float32) if image is None else image
    shown = (ground != 0) if image is not None else _around(tumour)
    planes = planes_through(tumour, shown, spacing)
    label, wanted = masks_to_label(masks, target), label_to_masks(truth, target)
    if target == "binary":
        truth = (truth > 0).astype(np.uint8)
    shapes = [plane.cut(ground).shape for plane in planes]
    # Few slices make planes of a small height: as wide as that asks for, they would crowd out the
    # axial one.
    widths = [
        min(w / plane.aspect / h, _WIDEST) for plane, (h, w) in zip(planes, shapes, strict=True)
    ]
    side = 2.7
    figure = Figure(
        figsize=(max(side * sum(widths) + 0.5, 5.2), side * len(_ROWS) + 1.0),
        layout=ConstrainedLayoutEngine(rect=(0, 0.055, 1, 0.945)),
    )
    panels = figure.subplots(len(_ROWS), len(planes), width_ratios=widths, squeeze=False)
    for column, plane in enumerate(planes):
        for row, name in enumerate(_ROWS):
            axes = panels[row, column]
            show_slice(axes, plane.cut(ground), plane.title if row == 0 else "", plane.aspect)
            if name == "errors":
                show_errors(axes, plane.cut(truth), plane.cut(label), plane.aspect)
            else:
                drawn = wanted if name == "truth" else masks
                show_contours(axes, plane.cut(drawn), target)
            if column == 0:
                axes.set_ylabel(name)
    handles = [
        Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.tumour_channels(target)
    ]
    errors = error_handles(target)
    figure.legend(
        handles=[*handles, *errors],
        loc="lower center",
        ncol=len(handles) + len(errors),
        frameon=False,
        fontsize=8,
        columnspacing=1.0,
        handlelength=1.2,
    )
    figure.suptitle(title, fontsize=11)
    return figure


def _around(tumour: np.ndarray) -> np.ndarray:
    """The tumour's box, half as wide again on every side, as a mask: the ground has no brain."""
    if not tumour.any():
        return np.ones(tumour.shape, bool)
    places = np.argwhere(tumour)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    margin = (high - low) // 2 + 5
    shown = np.zeros(tumour.shape, bool)
    first, last = np.maximum(low - margin, 0), high + margin
    shown[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return shown
