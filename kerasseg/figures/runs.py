"""`training_curves.png`.

How long a prediction takes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.figures.style import clean, save


def draw_inference_time(seconds: Sequence[float], slices: Sequence[int]) -> Figure:
    """Seconds per volume and milliseconds per slice, in the order of the cases: the first one may
    hold the compilation of the network."""
    time, depth = np.asarray(seconds, float), np.asarray(slices, float)
    numbers = np.arange(1, time.size + 1)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, unit, words in (
        (left, time, "s", "Time per volume"),
        (right, 1000 * time / np.maximum(depth, 1), "ms", "Time per slice"),
    ):
        axes.bar(numbers, values, 0.8, color="#1b6ca8")
        median = float(np.median(values))
        axes.axhline(median, color="#d1495b", lw=1.5, label=f"median {median:.3g} {unit}")
        axes.set(xlabel="case, in order", ylabel=unit, title=words)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        axes.legend(frameon=False)
        clean(axes, "y")
    return figure


def draw_training_curves(
    history: Sequence[dict[str, str]], best_epoch: int, target: str, path: Path
) -> None:
    """Write `training_curves` of a history as a PNG."""
    save(training_curves(history, best_epoch, target), path)


def training_curves(history: Sequence[dict[str, str]], best_epoch: int, target: str) -> Figure:
    """Loss, validation Dice per channel and learning rate over epochs; the best epoch is marked,
    if it is not 0.

    Dice of whole volumes, of the epochs that have it, as diamonds in the channel's colour.
    """
    epochs = [int(row["epoch"]) for row in history]

    def curve(name: str) -> list[float]:
        return [float(row[name]) for row in history]

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    loss, score, rate = figure.subplots(1, 3)
    marker = "o" if len(epochs) < 3 else None
    loss.plot(epochs, curve("loss"), label="training", marker=marker)
    loss.plot(epochs, curve("val_loss"), label="validation patches", marker=marker)
    loss.set(title="Loss", xlabel="epoch")
    channels, title = anatomy.tumour_channels(target), "Dice on validation patches"
    for name in channels:
        colour = anatomy.COLOURS[name]
        score.plot(epochs, curve(f"val_dice_{name}"), label=name, color=colour, marker=marker)
        volumes = f"val_volume_dice_{name}"
        points = [(int(r["epoch"]), float(r[volumes])) for r in history if r.get(volumes)]
        if points:
            title = "Dice on validation patches (lines) and volumes"
            score.plot(*zip(*points, strict=True), "D", color=colour, markersize=4)
    if len(channels) > 1:
        score.plot(epochs, curve("val_dice"), label="mean", color="black", lw=2, marker=marker)
    score.set(title=title, xlabel="epoch", ylim=(0, 1))
    rate.plot(epochs, curve("learning_rate"), color="grey", marker=marker)
    rate.set(title="Learning rate", xlabel="epoch")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (loss, score):
        if best_epoch > 0:
            axes.axvline(best_epoch, color="grey", lw=1, ls=":", label=f"best epoch {best_epoch}")
        axes.legend(fontsize=8)
    for axes in (loss, score, rate):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
