"""`<case>_overlay.png`: truth against prediction."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kerasseg import anatomy
from kerasseg.evaluation.figures.drawing import legend, save, show_slice, show_tumour
from kerasseg.records.schema import StoredCase


def draw_overlay(
    stored: StoredCase, prediction: np.ndarray, target: str, title: str, path: Path
) -> None:
    """The axial slice with most tumour: every modality, then truth and prediction over FLAIR,
    or over the first modality where there is no FLAIR. Without tumour, that with most predicted.

    `prediction` (D, H, W) holds labels of the stored box, as `targets.masks_to_label` gives them.
    """
    case = stored.case
    assert case.label is not None
    tumour = case.label if case.label.any() else prediction
    areas = (tumour > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else case.label.shape[0] // 2
    channels = len(case.modalities)
    figure = Figure(
        figsize=(2.5 * (channels + 2), 3.6), layout=ConstrainedLayoutEngine(rect=(0, 0.08, 1, 0.92))
    )
    axes = figure.subplots(1, channels + 2)
    aspect = case.spacing[1] / case.spacing[2]
    for channel, modality in enumerate(case.modalities):
        shown = anatomy.MODALITY_TITLES.get(modality, modality)
        show_slice(axes[channel], case.image[index, ..., channel], shown, aspect)
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    for panel, label, name in (
        (axes[-2], case.label, "truth"),
        (axes[-1], prediction, "prediction"),
    ):
        show_slice(panel, case.image[index, ..., base], name, aspect)
        show_tumour(panel, label[index], target, aspect)
    if stored.full_shape[0] > 1:
        title += f", axial slice {index + stored.offset[0]}"
    figure.suptitle(title, fontsize=11)
    legend(figure, target)
    save(figure, path)
