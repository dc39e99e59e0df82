"""The figure of a campaign: the Dice of every tested case, sorted, and the learning curves.

`python -m benchmarks.campaign_figures lgg OUT FIGURE.png fold0,fold1 RECIPE...` draws recipes of
seed 0 from the folder of a campaign, the tested cases of all parts together. There is no image of a
patient in it.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks import lgg, pairs
from benchmarks.campaign import Job
from benchmarks.campaign_scores import read_scores
from kerasseg.figures.style import REMARK, RUN_COLOURS, style_axes
from kerasseg.run import read_history


def draw_campaign(
    dice: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw every case's Dice and the validation Dice of each epoch.

    Args:
        dice: Recipe -> Dice of its tested cases, in any order.
        curves: Recipe -> smoothed validation Dice of its epochs, the mean over the parts.
    """
    figure = Figure(figsize=(11, 3.6 + 0.2 * len(dice)), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, values) in zip(RUN_COLOURS, dice.items(), strict=False):
        label = f"{name}: mean {np.mean(values):.3f}, median {np.median(values):.3f}"
        left.plot(range(1, len(values) + 1), sorted(values), "o-", color=colour, ms=4, label=label)
        if name in curves:
            epochs = range(1, len(curves[name]) + 1)
            right.plot(epochs, curves[name], color=colour)
    left.set(title="Dice of every tested case, sorted", xlabel="case, worst first", ylim=(0, 1))
    right.set(title="Dice of validation patches, smoothed", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        style_axes(axes, "y")
    figure.legend(loc="outside lower left", frameon=False, fontsize=REMARK)
    return figure


def main(campaign: str, out: str, figure: str, parts: str, *recipes: str) -> None:
    """Draw the figure of a campaign."""
    known = {r.name: r for r in {"lgg": lgg, "pairs": pairs}[campaign].RECIPES}
    dice, curves = {}, {}
    for recipe in (known[name] for name in recipes):
        jobs = [Job(recipe, part, 0) for part in parts.split(",")]
        rows = [row for job in jobs for row in read_scores(Path(out, "scores", f"{job.name}.csv"))]
        dice[recipe.about] = [row.dice for row in rows if row.side == "test"]
        histories = [Path(out, "runs", job.run, "history.csv") for job in jobs]
        if not recipe.run_of and all(path.exists() for path in histories):
            epochs = zip(*map(read_history, histories), strict=True)
            smoothed = [[float(row["val_dice_smoothed"]) for row in epoch] for epoch in epochs]
            curves[recipe.about] = [float(np.mean(values)) for values in smoothed]
    draw_campaign(dice, curves).savefig(figure, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
