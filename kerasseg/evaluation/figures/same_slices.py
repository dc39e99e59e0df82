"""The same slices of several runs next to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from kerasseg import anatomy
from kerasseg.evaluation.figures.drawing import show_contours, show_slice
from kerasseg.evaluation.figures.planes import planes_through
from kerasseg.targets import label_to_masks


@dataclass(frozen=True)
class ComparedCase:
    """A case as several runs see it: image (D, H, W) or None, truth (D, H, W), spacing in mm, and
    of each run its masks (D, H, W, K) and a few words, such as its Dice."""

    case_id: str
    image: np.ndarray | None
    truth: np.ndarray
    spacing: tuple[float, float, float]
    masks: Mapping[str, np.ndarray]
    words: Mapping[str, str]


def draw_same_slices(cases: Sequence[ComparedCase], target: str) -> Figure:
    """A row per case: the axial slice with most tumour, outlines of the truth and of each run."""
    runs = list(cases[0].masks)
    side = 2.6
    height = side * 1.12 * len(cases) + 0.9
    below = 0.45 / height
    figure = Figure(
        figsize=(side * (len(runs) + 1) + 0.4, height),
        layout=ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below)),
    )
    panels = figure.subplots(len(cases), len(runs) + 1, squeeze=False)
    for row, case in enumerate(cases):
        any_run = np.logical_or.reduce([m.any(axis=-1) for m in case.masks.values()])
        tumour = case.truth > 0 if case.truth.any() else any_run
        ground = np.zeros(case.truth.shape, np.float32) if case.image is None else case.image
        plane = planes_through(tumour, ground != 0, case.spacing)[0]
        drawn = {"truth": label_to_masks(case.truth, target), **case.masks}
        for column, (name, masks) in enumerate(drawn.items()):
            axes = panels[row, column]
            words = name if row == 0 else ""
            if name in case.words:
                words = f"{words}\n{case.words[name]}".strip()
            show_slice(axes, plane.cut(ground), words, plane.aspect)
            show_contours(axes, plane.cut(masks), target)
        panels[row, 0].set_ylabel(f"{case.case_id}\n{plane.title}", fontsize=8)
    handles = [
        Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.tumour_channels(target)
    ]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)
    return figure
