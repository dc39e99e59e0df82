"""Where the time went.

Scores in the order of the trials.

The objective while the best trials were trained.

The score against each setting.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasseg.figures.style import RUN_COLOURS, clean, nothing, strewn
from kerasseg.tuning.report.figure_parts import (
    BEST,
    STATUS_COLOURS,
    epoch_shades,
    objective_label,
    panels,
    parameter_axis,
    score_limits,
    score_range,
    without_score,
)
from kerasseg.tuning.report.read_search import Search
from kerasseg.tuning.space import Parameter
from kerasseg.tuning.trials import STATUSES, TrialRecord


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


_BEST = 5


def draw_best_curves(search: Search) -> Figure:
    """Curves of the five best trials in colour, a line per execution, those of the baseline
    dashed, and of all other trials, failed ones too, in grey."""
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    axes = figure.subplots()
    best = [trial for trial in search.ranked if trial.is_scored and not trial.is_baseline][:_BEST]
    for trial in search.trials:
        if trial not in best and not trial.is_baseline:
            _draw_curve(axes, trial, "#bbbbbb", "", lw=0.9, zorder=1)
    for trial, colour in zip(best, RUN_COLOURS, strict=False):
        _draw_curve(axes, trial, colour, f"{trial.title}: {trial.score:.4g}", lw=1.9, zorder=3)
    baseline = search.baseline
    if baseline:
        words = f"baseline: {baseline.score:.4g}" if baseline.is_scored else "baseline"
        _draw_curve(axes, baseline, "#222222", words, lw=1.5, ls="--", zorder=4)
    if not axes.lines:
        nothing(axes, "No trial has finished an epoch.")
    elif axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set(xlabel="epoch", ylabel=objective_label(search), title="Curves of the best trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def _draw_curve(
    axes: Axes, trial: TrialRecord, colour: str, words: str, **line: float | str
) -> None:
    for execution in trial.executions:
        if execution.curve:
            epochs = range(execution.first_epoch, execution.first_epoch + len(execution.curve))
            marker = "o" if len(execution.curve) < 3 else ""
            axes.plot(
                epochs,
                execution.curve,
                color=colour,
                label=words or None,
                marker=marker,
                ms=3,
                **line,  # type: ignore[arg-type]
            )
            words = ""


_BOTTOM = 0.04
"""Height of what has no score, of the axis."""
_MANY = 60


def draw_score_by_value(search: Search) -> Figure:
    """A panel per setting: a dot per scored trial that used it, the best ringed, the baseline as a
    diamond; trials without a score as crosses along the bottom. Dots of one choice are strewn to
    the sides. Where the tuner asked for different numbers of epochs the shade tells them."""
    figure, found = panels(len(search.parameters))
    for axes, parameter in zip(found, search.parameters, strict=True):
        _draw_values(axes, search, parameter)
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


def _draw_values(axes: Axes, search: Search, parameter: Parameter) -> None:
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


_ONE = "one process"


def draw_time_spent(search: Search) -> Figure:
    """A row per worker with a bar per trial, coloured by status and numbered where there is room;
    below, the minutes of training by status."""
    workers = sorted({trial.worker or _ONE for trial in search.trials})
    rows = 0.45 * len(workers)
    figure = Figure(figsize=(12.5, 3.1 + rows), layout="constrained")
    axes, sums = figure.subplots(2, 1, height_ratios=(0.9 + rows, 1.2))
    start = min(trial.started for trial in search.trials)
    last = max(_end(trial, search) for trial in search.trials)
    unit, words = (3600, "hours") if last - start > 3 * 3600 else (60, "minutes")
    whole = max(last - start, 1e-6) / unit
    for trial in search.trials:
        row = workers.index(trial.worker or _ONE)
        left, width = (trial.started - start) / unit, (_end(trial, search) - trial.started) / unit
        axes.barh(
            row,
            width,
            left=left,
            height=0.7,
            color=STATUS_COLOURS[trial.status],
            edgecolor="white",
            lw=0.8,
            hatch="//" if trial.status == "running" else None,
        )
        title = "base" if trial.is_baseline else str(trial.number)
        if width > whole * 0.009 * len(title):
            middle = left + width / 2
            ink = "black" if trial.status == "running" else "white"
            axes.text(middle, row, title, ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(workers)), workers, fontsize=8)
    axes.set(xlim=(0, whole), ylim=(len(workers) - 0.4, -0.6), xlabel=f"{words} since the first")
    axes.set_title("Time spent")
    clean(axes, "x")
    present = [status for status in STATUSES if search.count(status)]
    for row, status in enumerate(present):
        minutes = minutes_of(search, status)
        sums.barh(row, minutes, height=0.7, color=STATUS_COLOURS[status])
        count = search.count(status)
        sums.annotate(
            f"{minutes:,.1f} min in {count} trial{'' if count == 1 else 's'}",
            (minutes, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    sums.set_yticks(range(len(present)), present, fontsize=8)
    sums.set(ylim=(len(present) - 0.4, -0.6), xlabel="minutes of training, all workers")
    sums.margins(x=0.2)
    clean(sums, "x")
    return figure


def minutes_of(search: Search, status: str) -> float:
    """Of all trials with a status; of running ones what their executions say so far."""
    return sum(trial.minutes for trial in search.trials if trial.status == status)


def _end(trial: TrialRecord, search: Search) -> float:
    return search.until if trial.ended is None else max(trial.ended, trial.started)
