"""The score against each setting."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, nothing, strewn
from kerasseg.tuning.parameter import Parameter
from kerasseg.tuning.report.figures.style import (
    BEST,
    STATUS_COLOURS,
    epoch_shades,
    panels,
    parameter_axis,
    score_limits,
    score_range,
)
from kerasseg.tuning.report.search import Search

_BOTTOM = 0.04
"""Height of what has no score, of the axis."""
_MANY = 60


def draw_score_by_value(search: Search) -> Figure:
    """A panel per setting: a dot per scored trial that used it, the best ringed, the baseline as a
    diamond; trials without a score as crosses along the bottom. Dots of one choice are strewn to
    the sides. Where the tuner asked for different numbers of epochs the shade tells them."""
    figure, found = panels(len(search.parameters))
    for axes, parameter in zip(found, search.parameters, strict=True):
        _draw(axes, search, parameter)
    for axes in found[::3]:
        axes.set_ylabel(search.objective)
    shades = epoch_shades(search)
    if shades:
        norm = BoundaryNorm(np.arange(len(shades) + 1), len(shades))
        colours = ScalarMappable(norm, ListedColormap(list(shades.values())))
        bar = figure.colorbar(colours, ax=found, aspect=40, pad=0.01)
        bar.set_ticks([n + 0.5 for n in range(len(shades))], labels=[str(n) for n in shades])
        bar.set_label("epochs")
    figure.suptitle("Score against each setting")
    return figure


def _draw(axes: Axes, search: Search, parameter: Parameter) -> None:
    used = [(t, parameter.number(t.values.get(parameter.name))) for t in search.trials]
    used = [(trial, number) for trial, number in used if not np.isnan(number)]
    places = np.array([number for _, number in used])
    if parameter.is_category:
        places = places + strewn(0.0, len(used))
    shades, (low, high) = epoch_shades(search), score_range(search)
    size = 6 if len(used) < _MANY else 4
    # One call per look: a line of its own per dot takes seconds.
    looks: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for (trial, _), place in zip(used, places.tolist(), strict=True):
        if trial.is_scored:
            shade = shades.get(trial.epochs_to, STATUS_COLOURS["completed"])
            score = float(np.clip(trial.score or 0.0, low, high))
            marker = "D" if trial.is_baseline else "o"
            look = (marker, "white" if trial.is_baseline else shade, trial is search.best)
            looks.setdefault(look, []).append((place, score))
        else:
            marker = ">" if trial.status == "running" else "x"
            look = (marker, STATUS_COLOURS[trial.status], False)
            looks.setdefault(look, []).append((place, _BOTTOM))
    for (marker, colour, best), dots in looks.items():
        line = axes.plot(*zip(*dots, strict=True), marker, ms=size, color=colour, zorder=3)[0]
        if marker in "x>":
            line.set(transform=axes.get_xaxis_transform(), markeredgewidth=1.8)
        else:
            line.set(markeredgecolor="#333333", markeredgewidth=0.7)
        if best:
            line.set(markersize=8, markeredgecolor=BEST, markeredgewidth=2, zorder=4)
    parameter_axis(axes, parameter)
    limits = score_limits(search)
    if limits:
        axes.set_ylim(*limits)
    if not used:
        nothing(axes, "No trial used it.")
    axes.set_title(parameter.name, fontsize=10)
    clean(axes)
