"""Receiver operating characteristic."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, shades
from kerasseg.evaluation.probability_counts import ProbabilityCounts


def draw_roc_curve(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """True against false positive rate of the voxels of all cases, a curve per class with its
    area; the false positive rate is logarithmic, because most voxels are healthy."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for name, colour in shades(counts).items():
        thresholds, hits, wrong = counts[name].above()
        if not hits[-1] or not wrong[-1]:
            continue
        true = np.concatenate([[0.0], hits / hits[-1]])
        false = np.concatenate([[0.0], wrong / wrong[-1]])
        area = float(np.trapezoid(true, false))
        axes.plot(false, true, color=colour, lw=2, label=f"{name}: area {area:.4f}")
        middle = 1 + int(np.abs(thresholds - 0.5).argmin())
        axes.plot(false[middle], true[middle], "o", color=colour, mec="#333333", ms=7)
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-5, 1.05),
        ylim=(0, 1.01),
        xlabel="false positive rate",
        ylabel="true positive rate (recall)",
        title="ROC of voxels (dot: threshold 0.5)",
    )
    axes.legend(frameon=False, loc="lower right")
    clean(axes)
    return figure
