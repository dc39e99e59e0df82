"""Dice over the threshold.

Reliability diagram.

Precision against recall over all thresholds.

Receiver operating characteristic.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.results import ProbabilityCounts, calibration
from kerasseg.figures.style import clean, shades


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


def draw_threshold_sweep(counts: Mapping[str, ProbabilityCounts]) -> Figure:
    """Dice of the voxels of all cases together, were a class to hold from each threshold on; the
    best one is marked. It is no mean over cases, and a threshold chosen here needs other cases to
    be tested on."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, colour in shades(counts).items():
        thresholds, hits, wrong = counts[name].above()
        if not hits[-1]:
            continue
        dice = 2 * hits / (hits[-1] + hits + wrong)
        best = int(dice.argmax())
        words = f"{name}: {dice[best]:.3f} at {thresholds[best]:.2f}"
        axes.plot(thresholds, dice, color=colour, lw=2, label=words)
        axes.plot(thresholds[best], dice[best], "o", color=colour, mec="#333333", ms=7)
    axes.axvline(0.5, color="#999999", lw=1, ls=":")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="threshold",
        ylabel="Dice of all voxels together",
        title="Dice over the threshold",
    )
    axes.legend(frameon=False, loc="lower center", title="best")
    clean(axes)
    return figure
