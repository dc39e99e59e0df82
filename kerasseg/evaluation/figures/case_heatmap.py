"""Dice of every case and class at a glance."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

_MOST_NAMED = 60


def draw_case_heatmap(case_ids: Sequence[str], values: Mapping[str, Sequence[float]]) -> Figure:
    """A row per case, the best mean above, a column per class; grey: no value."""
    table = np.array([np.asarray(values[name], float) for name in values]).T
    with np.errstate(all="ignore"):
        means = np.where(np.isfinite(table), table, 0).sum(1) / np.maximum(
            np.isfinite(table).sum(1), 1
        )
    order = np.argsort(-means, kind="stable")
    named = len(case_ids) <= _MOST_NAMED
    height = float(np.clip(0.24 * len(case_ids), 1.2, 12))
    figure = Figure(figsize=(2.6 + 0.8 * len(values), 1.2 + height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#bbbbbb")
    image = axes.imshow(table[order], vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(values)), list(values))
    axes.tick_params(length=0)
    if named:
        axes.set_yticks(range(len(case_ids)), [case_ids[i] for i in order], fontsize=8)
        for row, column in np.ndindex(*table.shape):
            value = table[order][row, column]
            if np.isfinite(value):
                shade = "white" if value < 0.1 or value > 0.93 else "#222222"
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade
                )
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(case_ids)} cases, best above")
    axes.spines[:].set_visible(False)
    axes.set_title("Dice of every case")
    figure.colorbar(image, ax=axes, label="Dice", shrink=min(1.0, 2.5 / height + 0.3))
    return figure
