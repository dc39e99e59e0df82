"""Figures of runs: training curves, and how long predictions take."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.figures.style import BLUE, RED, REMARK, RUN_COLOURS, style_axes, whole_ticks


def draw_inference_time(seconds: Sequence[float], slices: Sequence[int]) -> Figure:
    """Draw the seconds per volume and the milliseconds per slice, in the order of the cases.

    The first case may include the compilation of the network. `slices` are axial slices per case.
    """
    time, depth = np.asarray(seconds, float), np.asarray(slices, float)
    numbers = np.arange(1, time.size + 1)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, unit, title in (
        (left, time, "s", "Time per volume"),
        (right, 1000 * time / np.maximum(depth, 1), "ms", "Time per slice"),
    ):
        axes.bar(numbers, values, 0.8, color=BLUE)
        median = float(np.median(values))
        axes.axhline(median, color=RED, lw=1.5, label=f"median {median:.3g} {unit}")
        axes.set(xlabel="case, in order", ylabel=unit, title=title)
        whole_ticks(axes)
        axes.margins(y=0.15)
        axes.legend(frameon=False)
        style_axes(axes, "y")
    return figure


def draw_training_curves(history: Sequence[dict[str, str]], best_epoch: int, target: str) -> Figure:
    """Draw loss, validation Dice and learning rate over the epochs.

    Diamonds are the Dice of whole volumes, in the epochs that measured it.

    Args:
        history: A row per epoch, as `history.csv` has it.
        best_epoch: The epoch that is marked, from 1 on; 0 for none.
        target: The target whose channels have a curve.
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
        axes.legend(frameon=False, fontsize=REMARK)
    for axes in (loss, score, rate):
        style_axes(axes)
        whole_ticks(axes)
    return figure


def draw_run_curves(histories: Mapping[str, Sequence[dict[str, str]]]) -> Figure:
    """Draw loss and validation Dice over the epochs, a colour per run, of rows of `history.csv`."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    loss, score = figure.subplots(1, 2)
    known = list(histories.values())
    for place, (run, rows) in enumerate(histories.items()):
        if not rows or rows in known[:place]:
            continue  # the same run with other settings of its evaluation
        epochs = [int(row["epoch"]) for row in rows]
        style = {
            "color": RUN_COLOURS[place % len(RUN_COLOURS)],
            "marker": "." if len(rows) < 3 else None,
        }
        loss.plot(epochs, [float(row["loss"]) for row in rows], ":", **style)
        loss.plot(epochs, [float(row["val_loss"]) for row in rows], **style)
        score.plot(epochs, [float(row["val_dice"]) for row in rows], label=run, **style)
    loss.set(title="Loss on validation patches (dotted: training)", xlabel="epoch")
    score.set(title="Dice on validation patches", xlabel="epoch", ylim=(0, 1))
    score.legend(frameon=False, fontsize=REMARK)
    for axes in (loss, score):
        style_axes(axes)
        whole_ticks(axes)
    return figure
