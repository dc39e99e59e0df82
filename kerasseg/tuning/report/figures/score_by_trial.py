"""Scores in the order of the trials."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasseg.evaluation.figures.style import clean, nothing
from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.report.figures.style import (
    BEST,
    STATUS_COLOURS,
    epoch_shades,
    objective_label,
    score_limits,
    score_range,
    without_score,
)
from kerasseg.tuning.report.search import Search


def draw_score_by_trial(search: Search) -> Figure:
    """A dot per scored trial, a line for the best so far, the baseline dashed; trials without a
    score as crosses along the bottom. Where the tuner asked for different numbers of epochs, the
    dots' shade tells them."""
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    axes = figure.subplots()
    scored = [trial for trial in search.trials if trial.is_scored and not trial.is_baseline]
    shades = epoch_shades(search)
    groups: list[tuple[str, Any, list[TrialRecord]]] = [
        (f"{n} epochs", shade, [t for t in scored if t.epochs_to == n])
        for n, shade in shades.items()
    ]
    others = [trial for trial in scored if trial.epochs_to not in shades]
    groups.append(("completed", STATUS_COLOURS["completed"], others))
    for words, colour, of in groups:
        if of:
            numbers, scores = (
                [t.number for t in of],
                np.clip([t.score for t in of], *score_range(search)),
            )
            axes.plot(numbers, scores, "o", ms=7, color=colour, mec="#333333", mew=0.6, label=words)
    if scored:
        keep = np.maximum if search.direction == "max" else np.minimum
        best = np.clip(keep.accumulate([t.score or 0.0 for t in scored]), *score_range(search))
        numbers = [trial.number for trial in scored]
        axes.step(numbers, best, where="post", color=BEST, lw=1.8, label="best so far", zorder=1)
    if search.baseline and search.baseline.is_scored:
        score = search.baseline.score or 0.0
        axes.axhline(score, color="#333333", ls="--", lw=1.2, label=f"baseline {score:.4g}")
    limits = score_limits(search)
    for status, colour in STATUS_COLOURS.items():
        numbers = [t.number for t in without_score(search) if t.status == status]
        if numbers:
            words = "completed, no finite score" if status == "completed" else status
            heights = np.full(len(numbers), 0.03)
            marker = ">" if status == "running" else "x"
            axes.plot(
                numbers,
                heights,
                marker,
                ms=7,
                mew=2,
                color=colour,
                label=words,
                transform=axes.get_xaxis_transform(),
            )
    if limits:
        axes.set_ylim(*limits)
    else:
        axes.set_yticks([])
        nothing(axes, "No trial has a score yet.")
    last = max(trial.number for trial in search.trials)
    axes.set(xlim=(min(0.4, search.trials[0].number - 0.6), last + 0.6), xlabel="trial")
    axes.set_ylabel(objective_label(search))
    axes.set_title("Score by trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
