"""Precision against recall over all thresholds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, shades
from kerasseg.evaluation.probability_counts import ProbabilityCounts


def draw_precision_recall_curve(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """A curve per class over the voxels of all cases, its average precision (area, by steps) and,
    as a dot, the threshold 0.5."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for name, colour in shades(counts).items():
        thresholds, hits, wrong = counts[name].above()
        positives = hits[-1]
        if not positives:
            continue
        found = hits + wrong > 0
        recall, precision = hits[found] / positives, hits[found] / (hits + wrong)[found]
        average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
        axes.plot(recall, precision, color=colour, lw=2, label=f"{name}: area {average:.3f}")
        middle = int(np.abs(thresholds[found] - 0.5).argmin())
        axes.plot(recall[middle], precision[middle], "o", color=colour, mec="#333333", ms=7)
    axes.set(
        xlim=(0, 1.01),
        ylim=(0, 1.01),
        xlabel="recall",
        ylabel="precision",
        title="Precision and recall of voxels (dot: threshold 0.5)",
    )
    axes.legend(frameon=False, loc="lower left")
    clean(axes)
    return figure
