"""Bland-Altman plot of volumes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import class_panels, clean, shades


def draw_bland_altman(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class: mean of both volumes against their difference, mL; the mean difference
    and, dashed, mean +- 1.96 standard deviations (Bland and Altman 1986)."""
    figure, panels = class_panels(len(truth), height=3.1)
    for axes, (name, colour) in zip(panels, shades(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        difference = y - x
        bias = float(difference.mean())
        axes.axhline(0, color="#999999", lw=1)
        axes.axhline(bias, color="#333333", lw=1.5)
        words = f"{name}: bias {bias:+.2f} mL"
        if x.size > 2:
            spread = 1.96 * float(difference.std(ddof=1))
            for limit in (bias - spread, bias + spread):
                axes.axhline(limit, color="#333333", lw=1, ls=(0, (4, 2)))
            words += f"\nlimits {bias - spread:+.2f} to {bias + spread:+.2f} mL"
        axes.scatter(
            (x + y) / 2, difference, s=26, color=colour, lw=0.5, edgecolor="#333333", zorder=3
        )
        axes.set_title(words, fontsize=10)
        axes.set(xlabel="mean of both volumes [mL]", ylabel="predicted - true [mL]")
        axes.margins(y=0.12)
        clean(axes)
    figure.suptitle("Bland-Altman plot of volumes")
    return figure
