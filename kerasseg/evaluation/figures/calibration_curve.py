"""Reliability diagram."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.calibration import calibration
from kerasseg.evaluation.figures.style import clean, shades
from kerasseg.evaluation.probability_counts import ProbabilityCounts


def draw_calibration_curve(counts: Mapping[str, ProbabilityCounts], bins: int = 10) -> Figure:
    """Predicted probability against the observed share of positive voxels, a curve per class; on
    the diagonal a probability means what it says. Below: how many voxels have it."""
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="#999999", lw=1)
    width = 0.8 / len(counts) / bins
    for place, (name, colour) in enumerate(shades(counts).items()):
        found = calibration(counts[name], bins)
        known = found.voxels > 0
        words = f"{name}: expected calibration error {found.error:.4f}"
        axes.plot(
            found.predicted[known], found.observed[known], "o-", color=colour, lw=2, label=words
        )
        centres = (np.arange(bins) + 0.5) / bins + (place - (len(counts) - 1) / 2) * width
        below.bar(centres, found.voxels, width, color=colour)
    axes.set(ylim=(-0.02, 1.02), ylabel="share of voxels that are positive", title="Calibration")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    below.set_yscale("log")
    below.set(xlim=(0, 1), xlabel="predicted probability", ylabel="voxels")
    clean(axes)
    clean(below, "y")
    return figure
