"""Lesions found, missed and invented."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean

_KINDS = {"found": "#2e8b57", "missed": "#d1495b", "invented": "#8e5ea2"}


def draw_lesion_counts(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Connected components of all cases: class -> found, missed, invented -> number."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(counts))
    for offset, (kind, colour) in zip((-0.27, 0.0, 0.27), _KINDS.items(), strict=True):
        numbers = [counts[name][kind] for name in counts]
        bars = axes.bar(places + offset, numbers, 0.25, color=colour, label=kind)
        axes.bar_label(bars, [f"{n:.0f}" for n in numbers], fontsize=8, padding=2)
    axes.set_xticks(places, list(counts))
    axes.set(ylabel="lesions", title="Lesions (connected components) of all cases")
    axes.margins(y=0.12)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    clean(axes, "y")
    return figure
