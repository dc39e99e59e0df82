"""Which metrics say the same."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.metric_name import metric_name
from kerasseg.evaluation.rank_correlation import rank_correlation


def draw_metric_correlation(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rank correlation over cases of each pair of metrics (metric -> value per case)."""
    names = list(values)
    arrays = [np.asarray(values[name], float) for name in names]
    table = np.array([[rank_correlation(a, b) for b in arrays] for a in arrays])
    side = 1.8 + 0.62 * len(names)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#dddddd")
    image = axes.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    for row, column in np.ndindex(*table.shape):
        value = table[row, column]
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.7 else "#222222"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    words = [metric_name(name, unit=False) for name in names]
    axes.set_xticks(range(len(names)), words, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), words)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="rank correlation", shrink=0.75)
    return figure
