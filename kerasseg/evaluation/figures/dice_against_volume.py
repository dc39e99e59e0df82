"""Whether small tumours are found worse."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import class_panels, clean, logarithmic, shades
from kerasseg.evaluation.rank_correlation import rank_correlation


def draw_dice_against_volume(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class: a dot per case, true volume in mL against Dice; empty truths, which have
    no place on the logarithmic axis, are counted above."""
    figure, panels = class_panels(len(dice), height=3.1)
    for axes, (name, colour) in zip(panels, shades(dice).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        shown = (x > 0) & np.isfinite(y)
        axes.scatter(
            x[shown], y[shown], s=26, color=colour, alpha=0.85, lw=0.5, edgecolor="#333333"
        )
        words = name
        empty = int((x <= 0).sum())
        if shown.sum() > 2:
            words += f", rank correlation {rank_correlation(x[shown], y[shown]):.2f}"
        if empty:
            words += f"\n({empty} case{'' if empty == 1 else 's'} without it in the truth)"
        axes.set_title(words, fontsize=10)
        logarithmic(axes, x[shown])
        axes.set(ylim=(-0.03, 1.03), xlabel="true volume [mL]", ylabel="Dice")
        clean(axes)
    figure.suptitle("Dice against tumour volume")
    return figure
