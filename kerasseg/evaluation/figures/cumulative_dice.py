"""Which share of the cases reaches which Dice."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean, shades


def draw_cumulative_dice(values: Mapping[str, Sequence[float]]) -> Figure:
    """A curve per class, dashed where it shares its colour with another one: share of the cases
    whose Dice is at least x."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(shades(values).items()):
        array = np.sort(np.asarray(values[name], float))
        array = array[np.isfinite(array)]
        if not array.size:
            continue
        steps = np.concatenate([[0.0], array, [1.0]])
        share = np.concatenate([[1.0], 1 - np.arange(array.size) / array.size, [0.0]])
        share[-1] = (array >= 1).mean()
        style = "-" if place < 3 else (0, (4, 1.5))
        axes.step(steps, share, where="pre", color=colour, lw=2, ls=style, label=name)
    axes.set(
        xlim=(0, 1.01),
        ylim=(0, 1.02),
        xlabel="Dice",
        ylabel="share of the cases with at least this Dice",
        title="How many cases are how good",
    )
    axes.legend(frameon=False)
    clean(axes)
    return figure
