"""Which lesions are missed."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import class_panels, clean, logarithmic, nothing, shades


def draw_lesion_sizes(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per lesion of the truth: its volume in mm^3 against its Dice; a
    cross for one that was missed."""
    figure, panels = class_panels(len(volumes), height=3.1)
    for axes, (name, colour) in zip(panels, shades(volumes).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        missed = y == 0
        axes.scatter(x[~missed], y[~missed], s=24, color=colour, lw=0.5, edgecolor="#333333")
        axes.scatter(x[missed], y[missed], s=30, marker="x", color="#d1495b", zorder=3)
        logarithmic(axes, x)
        if not x.size:
            nothing(axes, "no lesion")
        words = f"{name}: {int(missed.sum())} of {x.size} missed"
        axes.set_title(words, fontsize=10)
        axes.set(ylim=(-0.05, 1.03), xlabel="lesion volume [mm\u00b3]", ylabel="Dice of the lesion")
        clean(axes)
    figure.suptitle("Lesions of the truth, as BraTS 2023 counts them")
    return figure
