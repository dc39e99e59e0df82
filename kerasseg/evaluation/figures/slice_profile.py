"""Area of truth and prediction from slice to slice."""

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean


def draw_slice_profile(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    title: str,
    colour: str,
) -> Figure:
    """Of two boolean masks (D, H, W): cm^2 of each axial slice, and its Dice where either has
    something."""
    square = spacing[1] * spacing[2] / 100
    areas = [np.count_nonzero(mask, axis=(1, 2)) * square for mask in (truth, prediction)]
    hits = np.count_nonzero(truth & prediction, axis=(1, 2)) * square
    slices = np.arange(truth.shape[0])
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(2, 1), sharex=True)
    axes.fill_between(slices, areas[0], color=colour, alpha=0.35, lw=0, label="truth")
    axes.plot(slices, areas[1], color="#333333", lw=1.8, label="prediction")
    axes.set(ylabel="area [cm\u00b2]", title=title)
    axes.legend(frameon=False)
    both = areas[0] + areas[1]
    held = both > 0
    below.bar(slices[held], 2 * hits[held] / both[held], 0.85, color=colour)
    below.set(xlabel="axial slice, from the feet up", ylabel="Dice of the slice", ylim=(0, 1))
    for panel in (axes, below):
        clean(panel, "y")
    return figure
