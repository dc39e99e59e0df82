"""Dice over the threshold."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, shades
from kerasseg.evaluation.probability_counts import ProbabilityCounts


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
