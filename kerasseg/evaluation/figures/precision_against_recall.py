"""Too much or too little: precision against recall of every case."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import class_panels, clean, shades


def draw_precision_against_recall(
    precision: Mapping[str, Sequence[float]], recall: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per case, on lines of equal Dice. Above the diagonal a case is
    drawn too large, below it too small."""
    figure, panels = class_panels(len(precision), height=3.3)
    grid = np.linspace(0.001, 1, 200)
    for axes, (name, colour) in zip(panels, shades(precision).items(), strict=True):
        for dice in (0.2, 0.4, 0.6, 0.8):
            below = 2 * grid - dice
            line = np.where(below > 0, dice * grid / np.where(below > 0, below, 1), np.nan)
            line[line > 1.0] = np.nan
            axes.plot(grid, line, color="#cccccc", lw=1)
            axes.text(1.0, dice / (2 - dice), f"{dice:g} ", fontsize=7, color="#888888", ha="right")
        axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        axes.scatter(
            precision[name], recall[name], s=26, color=colour, lw=0.5, edgecolor="#333333", zorder=3
        )
        axes.set(
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
            xlabel="precision",
            ylabel="recall",
            title=name,
            aspect="equal",
        )
        clean(axes, "")
    figure.suptitle("Precision and recall of every case (grey lines: equal Dice)")
    return figure
