"""`overlays/<case>.png`: a prediction over its scan."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kerasseg import anatomy
from kerasseg.evaluation.figures.drawing import legend, save, show_slice, show_tumour
from kerasseg.prediction.prediction import Prediction


def draw_prediction(prediction: Prediction, path: Path) -> None:
    """The axial slice with most predicted tumour, or the middle one: every modality, then the
    prediction over FLAIR, or over the first modality where there is no FLAIR."""
    case, label = prediction.case, prediction.label
    areas = (label > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else label.shape[0] // 2
    names = list(case.modalities)
    figure = Figure(
        figsize=(2.8 * (len(names) + 1), 3.6),
        layout=ConstrainedLayoutEngine(rect=(0, 0.08, 1, 0.92)),
    )
    axes = figure.subplots(1, len(names) + 1)
    aspect = case.spacing[1] / case.spacing[2]
    for channel, name in enumerate(names):
        title = anatomy.MODALITY_TITLES.get(name, name)
        show_slice(axes[channel], case.image[index, ..., channel], title, aspect)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    show_slice(axes[-1], case.image[index, ..., base], "prediction", aspect)
    show_tumour(axes[-1], label[index], prediction.target, aspect)
    title = case.case_id
    if label.shape[0] > 1:
        title += f", axial slice {index}"
    if not areas.any():
        title += ", no tumour found"
    figure.suptitle(title, fontsize=11)
    legend(figure, prediction.target)
    save(figure, path, "--output")
