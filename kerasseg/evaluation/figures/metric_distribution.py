"""How one metric spreads over the cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, dot_alpha, plain_numbers, shades, strewn

_WIDE = 30.0
"""Largest over median value above which a distance needs a logarithmic axis."""


def draw_metric_distribution(
    values: Mapping[str, Sequence[float]],
    by_rule: Mapping[str, Sequence[bool]],
    title: str,
    label: str,
    *,
    share: bool,
) -> Figure:
    """A row per class: a dot per case, quartiles as a box, the mean as a diamond.

    `by_rule` says which values a rule for empty masks decided: crosses. `share`: the axis is 0..1.
    """
    figure = Figure(figsize=(7.2, 1.5 + 0.72 * len(values)), layout="constrained")
    axes = figure.subplots()
    colours = shades(values)
    every = np.concatenate([np.asarray(v, float) for v in values.values()])
    every = every[np.isfinite(every)]
    for row, (name, numbers) in enumerate(values.items()):
        array, rule = np.asarray(numbers, float), np.asarray(by_rule[name], bool)
        known = np.isfinite(array)
        array, rule = array[known], rule[known]
        heights = strewn(row, array.size)
        dots: dict[str, Any] = {"color": colours[name], "alpha": dot_alpha(array.size), "zorder": 3}
        axes.scatter(array[~rule], heights[~rule], s=20, linewidths=0, **dots)
        axes.scatter(array[rule], heights[rule], s=26, marker="x", linewidths=1.4, **dots)
        if array.size > 3:
            low, median, high = np.quantile(array, (0.25, 0.5, 0.75))
            axes.barh(row, high - low, 0.56, left=low, color="#f0f0f0", edgecolor="#333333", lw=1)
            axes.vlines(median, row - 0.28, row + 0.28, color="#333333", lw=2, zorder=2)
        if array.size:
            axes.plot(array.mean(), row, "D", ms=6, mfc="white", mec="#333333", zorder=4)
    wide = not share and every.size and every.max() > _WIDE * max(float(np.median(every)), 1e-9)
    if wide:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, None)
        plain_numbers(axes)
    elif share:
        axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    words = "diamond: mean; box: quartiles"
    if any(any(rule) for rule in by_rule.values()):
        words += "; cross: decided by the rule for empty masks"
    axes.set_xlabel(f"{label}\n({words})")
    axes.set_title(title)
    clean(axes, "x")
    return figure
