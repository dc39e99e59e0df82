"""How much was drawn too much and too little, case by case."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean

TOO_MUCH, TOO_LITTLE, RIGHT = "#8e5ea2", "#d1495b", "#9ccc9c"
_MOST_NAMED = 40


def draw_error_volumes(
    case_ids: Sequence[str],
    right: Sequence[float],
    too_much: Sequence[float],
    too_little: Sequence[float],
    name: str,
) -> Figure:
    """mL of one class per case, the largest tumour first: hit, missed, and, below the line,
    invented."""
    hit, extra, missed = (np.asarray(v, float) for v in (right, too_much, too_little))
    order = np.argsort(-(hit + missed), kind="stable")
    places = np.arange(len(case_ids))
    figure = Figure(
        figsize=(float(np.clip(0.35 * len(case_ids) + 2, 6, 14)), 4.2), layout="constrained"
    )
    axes = figure.subplots()
    axes.bar(places, hit[order], 0.8, color=RIGHT, label="found")
    axes.bar(
        places, missed[order], 0.8, bottom=hit[order], color=TOO_LITTLE, label="missed (too little)"
    )
    axes.bar(places, -extra[order], 0.8, color=TOO_MUCH, label="invented (too much)")
    axes.axhline(0, color="#333333", lw=1)
    if len(case_ids) <= _MOST_NAMED:
        axes.set_xticks(places, [case_ids[i] for i in order], rotation=60, ha="right", fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(case_ids)} cases, largest first")
    axes.set(ylabel="volume [mL]", title=f"{name}: what was found, missed and invented")
    axes.legend(frameon=False)
    clean(axes, "y")
    return figure
