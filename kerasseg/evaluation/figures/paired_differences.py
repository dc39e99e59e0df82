"""Two runs on the same cases."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, dot_alpha, shades, strewn
from kerasseg.evaluation.paired import PairedDifference


def draw_paired_differences(
    differences: Mapping[str, PairedDifference], first: str, second: str, label: str
) -> Figure:
    """A row per class: a dot per case, `second` minus `first`; the mean and its interval in black,
    the p value of Wilcoxon's signed-rank test at the right."""
    figure = Figure(figsize=(9, 1.5 + 0.62 * len(differences)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#999999", lw=1)
    for row, (name, colour) in enumerate(shades(differences).items()):
        found = differences[name]
        values = np.asarray(found.values)
        axes.scatter(
            values, strewn(row, values.size), s=22, color=colour, lw=0, alpha=dot_alpha(values.size)
        )
        mean = found.mean
        if mean.low == mean.low:
            axes.plot([mean.low, mean.high], [row, row], color="#333333", lw=2.5)
        axes.plot(mean.mean, row, "D", ms=6, mfc="white", mec="#333333", zorder=4)
        words = f"{mean.mean:+.3g}, p: {found.p_in_words}"
        axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {label}\n(right of 0: {second} is higher than {first})")
    axes.set_title(f"{second} against {first}, case by case")
    clean(axes, "x")
    return figure
