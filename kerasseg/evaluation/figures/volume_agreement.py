"""Predicted against true volume."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import class_panels, clean, shades


def draw_volume_agreement(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per case, mL; on the line both agree."""
    figure, panels = class_panels(len(truth))
    for axes, (name, colour) in zip(panels, shades(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        high = 1.08 * max(x.max(initial=0), y.max(initial=0), 1e-3)
        axes.plot([0, high], [0, high], color="#999999", lw=1)
        axes.scatter(x, y, s=26, color=colour, alpha=0.85, lw=0.5, edgecolor="#333333", zorder=3)
        axes.set(
            xlim=(-0.03 * high, high),
            ylim=(-0.03 * high, high),
            xlabel="true volume [mL]",
            ylabel="predicted volume [mL]",
            title=name,
            aspect="equal",
        )
        clean(axes)
    figure.suptitle("Volumes")
    return figure
