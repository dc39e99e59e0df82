"""Figures of predicted probabilities: calibration, precision and recall, ROC, thresholds.

Each has a curve per class; `counts` go from a class to the voxels of all cases by probability.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from kerasseg.figures.style import INK, LINE, class_colours, new_figure, style_axes
from kerasseg.metrics.calibration import ProbabilityCounts, calibration


def draw_calibration_curve(counts: Mapping[str, ProbabilityCounts], bins: int = 10) -> Figure:
    """Draw the share of positive voxels over the predicted probability.

    On the diagonal a probability means what it says. Bars below count the voxels in each bin.
    """
    figure, (axes, below) = new_figure(6, 6.2, 2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=LINE, lw=1)
    width = 0.8 / len(counts) / bins
    for place, (name, colour) in enumerate(class_colours(counts).items()):
        found = calibration(counts[name], bins)
        known = found.voxels > 0
        label = f"{name}: expected calibration error {found.error:.4f}"
        axes.plot(
            found.predicted[known], found.observed[known], "o-", color=colour, lw=2, label=label
        )
        centres = (np.arange(bins) + 0.5) / bins + (place - (len(counts) - 1) / 2) * width
        below.bar(centres, found.voxels, width, color=colour)
    axes.set(ylim=(-0.02, 1.02), ylabel="share of voxels that are positive", title="Calibration")
    axes.legend(frameon=False, loc="upper left")
    below.set_yscale("log")
    below.set(xlim=(0, 1), xlabel="predicted probability", ylabel="voxels")
    style_axes(axes)
    style_axes(below, "y")
    return figure


def draw_precision_recall_curve(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """Draw precision over recall with the average precision, the area below the steps.

    A dot marks the threshold 0.5.
    """
    figure, axes = new_figure(5.6, 5.2)
    for name, colour in class_colours(counts).items():
        thresholds, hits, wrong = counts[name].above()
        positives = hits[-1]
        if not positives:
            continue
        found = hits + wrong > 0
        recall, precision = hits[found] / positives, hits[found] / (hits + wrong)[found]
        average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
        axes.plot(recall, precision, color=colour, lw=2, label=f"{name}: area {average:.3f}")
        middle = int(np.abs(thresholds[found] - 0.5).argmin())
        axes.plot(recall[middle], precision[middle], "o", color=colour, mec=INK, ms=7)
    axes.set(
        xlim=(0, 1.01),
        ylim=(0, 1.01),
        xlabel="recall",
        ylabel="precision",
        title="Precision and recall of voxels (dot: threshold 0.5)",
    )
    axes.legend(frameon=False, loc="lower left")
    style_axes(axes)
    return figure


def draw_roc_curve(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """Draw the true positive rate over the false positive rate, with the area below each curve.

    The false positive rate is logarithmic, because most voxels are healthy.
    """
    figure, axes = new_figure(5.6, 5.2)
    for name, colour in class_colours(counts).items():
        thresholds, hits, wrong = counts[name].above()
        if not hits[-1] or not wrong[-1]:
            continue
        true = np.concatenate([[0.0], hits / hits[-1]])
        false = np.concatenate([[0.0], wrong / wrong[-1]])
        area = float(trapezoid(true, false))
        axes.plot(false, true, color=colour, lw=2, label=f"{name}: area {area:.4f}")
        middle = 1 + int(np.abs(thresholds - 0.5).argmin())
        axes.plot(false[middle], true[middle], "o", color=colour, mec=INK, ms=7)
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-5, 1.05),
        ylim=(0, 1.01),
        xlabel="false positive rate",
        ylabel="true positive rate (recall)",
        title="ROC of voxels (dot: threshold 0.5)",
    )
    axes.legend(frameon=False, loc="lower right")
    style_axes(axes)
    return figure


def draw_threshold_sweep(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """Draw the Dice of all voxels over the threshold from which on a voxel belongs to the class.

    The best threshold is marked. The Dice is no mean over cases, and a threshold that is chosen
    here needs other cases to be tested on.
    """
    figure, axes = new_figure(6.4, 4.2)
    for name, colour in class_colours(counts).items():
        thresholds, hits, wrong = counts[name].above()
        if not hits[-1]:
            continue
        dice = 2 * hits / (hits[-1] + hits + wrong)
        best = int(dice.argmax())
        label = f"{name}: {dice[best]:.3f} at {thresholds[best]:.2f}"
        axes.plot(thresholds, dice, color=colour, lw=2, label=label)
        axes.plot(thresholds[best], dice[best], "o", color=colour, mec=INK, ms=7)
    axes.axvline(0.5, color=LINE, lw=1, ls=":")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="threshold",
        ylabel="Dice of all voxels together",
        title="Dice over the threshold",
    )
    axes.legend(frameon=False, loc="lower center", title="best")
    style_axes(axes)
    return figure
