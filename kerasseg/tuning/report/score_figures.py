"""Figures of a search's scores: by trial, by setting, over the epochs, and the time they took."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from kerasseg.figures import style
from kerasseg.tuning.report.read_search import SearchResults, choice_labels
from kerasseg.tuning.space import Parameter
from kerasseg.tuning.trials import STATUSES, TrialRecord

STATUS_COLOURS = {
    "completed": style.BLUE,
    "stopped": style.ORANGE,
    "failed": style.RED,
    "running": "#8a949e",
}
BEST = style.RED
_BEST_TRIALS = 5
_BOTTOM = 0.04
"""Height of trials without a score, as a share of the axis."""
_MANY_DOTS = 60
_PANEL_CHARACTERS = 48
"""Characters of labels that fit side by side below a panel."""
_FAR_QUARTILES = 6.0
"""Quartile distances beyond which a bad score is drawn at the edge."""
_NO_WORKER = "one process"


def draw_score_by_trial(search: SearchResults) -> Figure:
    """Draw the score of each trial in the order of the trials, and the best score so far.

    Crosses along the bottom are trials without a score, the dashed line is the baseline. If the
    tuner asked for different numbers of epochs, the colour of a dot shows them.
    """
    figure, axes = style.new_figure(12.5, 4.2)
    scored = [trial for trial in search.trials if trial.is_scored and not trial.is_baseline]
    colours = epoch_colours(search)
    groups: list[tuple[str, Any, list[TrialRecord]]] = [
        (f"{n} epochs", colour, [t for t in scored if t.epochs_to == n])
        for n, colour in colours.items()
    ]
    others = [trial for trial in scored if trial.epochs_to not in colours]
    groups.append(("completed", STATUS_COLOURS["completed"], others))
    for label, colour, trials in groups:
        if trials:
            numbers = [t.number for t in trials]
            scores = np.clip([t.score for t in trials], *score_range(search))
            axes.plot(numbers, scores, "o", ms=7, color=colour, mec=style.INK, mew=0.6, label=label)
    if scored:
        better = np.maximum if search.direction == "max" else np.minimum
        best = np.clip(better.accumulate([t.score or 0.0 for t in scored]), *score_range(search))
        numbers = [trial.number for trial in scored]
        axes.step(numbers, best, where="post", color=BEST, lw=1.8, label="best so far", zorder=1)
    if search.baseline and search.baseline.is_scored:
        score = search.baseline.score or 0.0
        axes.axhline(score, color=style.INK, ls="--", lw=1.2, label=f"baseline {score:.4g}")
    limits = score_limits(search)
    for status, colour in STATUS_COLOURS.items():
        numbers = [t.number for t in search.trials if not t.is_scored and t.status == status]
        if numbers:
            label = "completed, no finite score" if status == "completed" else status
            heights = np.full(len(numbers), 0.03)
            marker = ">" if status == "running" else "x"
            axes.plot(
                numbers,
                heights,
                marker,
                ms=7,
                mew=2,
                color=colour,
                label=label,
                transform=axes.get_xaxis_transform(),
            )
    if limits:
        axes.set_ylim(*limits)
    else:
        axes.set_yticks([])
        style.write_remark(axes, "No trial has a score yet.")
    last = max(trial.number for trial in search.trials)
    axes.set(xlim=(min(0.4, search.trials[0].number - 0.6), last + 0.6), xlabel="trial")
    axes.set_ylabel(objective_label(search))
    axes.set_title("Score by trial")
    style.whole_ticks(axes)
    style.style_axes(axes)
    style.legend_beside(axes)
    return figure


def draw_best_curves(search: SearchResults) -> Figure:
    """Draw the objective over the epochs: the five best trials in colour, the others in grey.

    Each execution of a trial is a line. The baseline is dashed.
    """
    figure, axes = style.new_figure(12.5, 4.4)
    best = [trial for trial in search.ranked if trial.is_scored and not trial.is_baseline][
        :_BEST_TRIALS
    ]
    for trial in search.trials:
        if trial not in best and not trial.is_baseline:
            _draw_curve(axes, trial, "#bbbbbb", "", lw=0.9, zorder=1)
    for trial, colour in zip(best, style.RUN_COLOURS, strict=False):
        _draw_curve(axes, trial, colour, f"{trial.title}: {trial.score:.4g}", lw=1.9, zorder=3)
    baseline = search.baseline
    if baseline:
        label = f"baseline: {baseline.score:.4g}" if baseline.is_scored else "baseline"
        _draw_curve(axes, baseline, style.INK, label, lw=1.5, ls="--", zorder=4)
    if not axes.lines:
        style.write_remark(axes, "No trial has finished an epoch.")
    elif axes.get_legend_handles_labels()[1]:
        style.legend_beside(axes)
    axes.set(xlabel="epoch", ylabel=objective_label(search), title="Curves of the best trials")
    style.whole_ticks(axes)
    style.style_axes(axes)
    return figure


def _draw_curve(
    axes: Axes, trial: TrialRecord, colour: str, label: str, **line: float | str
) -> None:
    for execution in trial.executions:
        if execution.curve:
            epochs = range(execution.first_epoch, execution.first_epoch + len(execution.curve))
            marker = "o" if len(execution.curve) < 3 else ""
            axes.plot(
                epochs,
                execution.curve,
                color=colour,
                label=label or None,
                marker=marker,
                ms=3,
                **line,  # type: ignore[arg-type]
            )
            label = ""  # one entry of the legend for all executions


def draw_score_by_value(search: SearchResults) -> Figure:
    """Draw the score over each setting, a panel per setting and a dot per trial that used it.

    The best trial is ringed, the baseline is a diamond, crosses along the bottom are trials without
    a score. If the tuner asked for different numbers of epochs, the colour of a dot shows them.
    """
    figure, found = style.panel_grid(len(search.parameters), width=4.2, height=3.3)
    for axes, parameter in zip(found, search.parameters, strict=True):
        _draw_values(axes, search, parameter)
    for axes in found[::3]:
        axes.set_ylabel(search.objective)
    colours = epoch_colours(search)
    if colours:
        norm = BoundaryNorm(np.arange(len(colours) + 1), len(colours))
        mappable = ScalarMappable(norm, ListedColormap(list(colours.values())))
        bar = figure.colorbar(mappable, ax=found, aspect=40, pad=0.01)
        bar.set_ticks([n + 0.5 for n in range(len(colours))], labels=[str(n) for n in colours])
        bar.set_label("epochs")
    figure.suptitle("Score against each setting", fontsize=style.FIGURE_TITLE)
    return figure


def _draw_values(axes: Axes, search: SearchResults, parameter: Parameter) -> None:
    used = [(t, parameter.number(t.values.get(parameter.name))) for t in search.trials]
    used = [(trial, number) for trial, number in used if not np.isnan(number)]
    places = np.array([number for _, number in used])
    if parameter.is_category:
        places = places + style.jitter(np.arange(len(used)))
    colours, (low, high) = epoch_colours(search), score_range(search)
    size = 6 if len(used) < _MANY_DOTS else 4
    # One call for all dots that look the same: a call for each dot takes seconds.
    looks: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for (trial, _), place in zip(used, places.tolist(), strict=True):
        if trial.is_scored:
            colour = colours.get(trial.epochs_to, STATUS_COLOURS["completed"])
            score = float(np.clip(trial.score or 0.0, low, high))
            marker = "D" if trial.is_baseline else "o"
            look = (marker, "white" if trial.is_baseline else colour, trial is search.best)
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
            line.set(markeredgecolor=style.INK, markeredgewidth=0.7)
        if best:
            line.set(markersize=8, markeredgecolor=BEST, markeredgewidth=2, zorder=4)
    parameter_axis(axes, parameter)
    limits = score_limits(search)
    if limits:
        axes.set_ylim(*limits)
    if not used:
        style.write_remark(axes, "No trial used it.")
    axes.set_title(parameter.name)
    style.style_axes(axes)


def draw_time_spent(search: SearchResults) -> Figure:
    """Draw a bar per trial in the row of its worker and, below, the minutes by status.

    Bars have the colour of the trial's status, and its number if there is room.
    """
    workers = sorted({trial.worker or _NO_WORKER for trial in search.trials})
    rows = 0.45 * len(workers)
    figure, (axes, sums) = style.new_figure(12.5, 3.1 + rows, 2, 1, height_ratios=(0.9 + rows, 1.2))
    start = min(trial.started for trial in search.trials)
    last = max(_end(trial, search) for trial in search.trials)
    unit, unit_name = (3600, "hours") if last - start > 3 * 3600 else (60, "minutes")
    whole = max(last - start, 1e-6) / unit
    for trial in search.trials:
        row = workers.index(trial.worker or _NO_WORKER)
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
            axes.text(middle, row, title, ha="center", va="center", fontsize=style.DENSE, color=ink)
    style.label_rows(axes, workers)
    axes.set(xlim=(0, whole), xlabel=f"{unit_name} since the first")
    axes.set_title("Time spent")
    style.style_axes(axes, "x")
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
            fontsize=style.REMARK,
        )
    style.label_rows(sums, present)
    sums.set(xlabel="minutes of training, all workers")
    sums.margins(x=0.2)
    style.style_axes(sums, "x")
    return figure


def minutes_of(search: SearchResults, status: str) -> float:
    """Return the minutes that all trials with a status have taken so far."""
    return sum(trial.minutes for trial in search.trials if trial.status == status)


def _end(trial: TrialRecord, search: SearchResults) -> float:
    return search.until if trial.ended is None else max(trial.ended, trial.started)


def parameter_axis(axes: Axes, parameter: Parameter, which: str = "x") -> None:
    """Set the scale, ticks and limits of an axis for the values of `Parameter.number`."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if parameter.is_category:
        count = len(parameter.choices)
        # Labels of a few choices are broken into lines; those of many choices are slanted.
        few = which == "y" or count <= 4
        width = 20 if which == "y" else _PANEL_CHARACTERS // count
        labels = choice_labels(parameter, *((3, width) if few else (1,)))
        slanted = not few and sum(map(len, labels)) > _PANEL_CHARACTERS
        axis.set_ticks(range(count))
        axis.set_ticklabels(labels)
        if slanted:
            axes.tick_params(axis="x", rotation=30)
            for label in axis.get_ticklabels():
                label.set(ha="right", rotation_mode="anchor")
        set_limits(-0.5, count - 0.5)
        return
    if parameter.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        ratio = (parameter.highest / parameter.lowest) ** 0.04
        set_limits(parameter.lowest / ratio, parameter.highest * ratio)
        return
    margin = 0.04 * (parameter.highest - parameter.lowest)
    set_limits(parameter.lowest - margin, parameter.highest + margin)
    if parameter.kind == "int":
        style.whole_ticks(axes, which)


def score_range(search: SearchResults) -> tuple[float, float]:
    """Return the lowest and the highest score to draw.

    A few scores that are far worse than all others, such as a loss of 1e6, lie outside of it: they
    would squeeze the rest into one line.
    """
    scores = np.array(search.scores or [0.0])
    low, high = float(scores.min()), float(scores.max())
    first, third = np.percentile(scores, (25, 75))
    far = _FAR_QUARTILES * float(third - first)
    if far > 0 and search.direction == "max":
        low = max(low, float(first) - far)
    elif far > 0:
        high = min(high, float(third) + far)
    return low, high


def score_limits(search: SearchResults) -> tuple[float, float] | None:
    """Return the limits of an axis of scores, with room below for trials without a score.

    Returns lower and upper limit, or None if no trial has a score.
    """
    if not search.scores:
        return None
    low, high = score_range(search)
    span = (high - low) or abs(high) * 0.1 or 1.0
    return low - 0.14 * span, high + 0.08 * span


def objective_label(search: SearchResults) -> str:
    """Return the label of an axis of scores."""
    return f"{search.objective}, {'high' if search.direction == 'max' else 'low'} is good"


def epoch_colours(search: SearchResults) -> dict[int | None, tuple[float, float, float, float]]:
    """Return a blue for each number of epochs that the tuner asked for, dark for many.

    Returns epochs -> RGBA; empty if all trials have the same number of epochs.
    """
    lengths = search.planned_epochs
    if len(lengths) < 2:
        return {}
    blues = colormaps["Blues"]
    return {n: blues(0.4 + 0.6 * i / (len(lengths) - 1)) for i, n in enumerate(lengths)}
