"""Figures of a search's settings: all of them at once, their importance, the two that matter."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from kerasseg.figures import style
from kerasseg.tuning.report.importance import Encoded, Importance, features, filled, fit_forest
from kerasseg.tuning.report.read_search import SearchResults, choice_labels, format_setting
from kerasseg.tuning.report.score_figures import (
    BEST,
    STATUS_COLOURS,
    objective_label,
    parameter_axis,
    score_range,
)
from kerasseg.tuning.space import Parameter
from kerasseg.tuning.trials import TrialRecord

_UNUSED = -0.16
"""Height of a setting that is not in use and of a missing score, as a share of the axes."""
_SPREAD = 0.035
"""Jitter of lines through one choice, as a share of the axis."""
_STEPS = 40
"""Values of a parameter in the map of two settings."""
_SEED = 0


def draw_parameter_importance(importance: Importance) -> Figure:
    """Draw a bar per setting with its interval; a share below 0 is noise and has no bar."""
    names = list(importance.shares)
    figure, axes = style.new_figure(7.6, 1.6 + 0.38 * len(names))
    for row, (mean, low, high) in enumerate(importance.shares.values()):
        axes.barh(row, 100 * max(mean, 0), height=0.62, color=STATUS_COLOURS["completed"])
        axes.plot([100 * low, 100 * high], [row, row], color=style.INK, lw=1.6)
        axes.plot([100 * low, 100 * high], [row, row], "|", color=style.INK, ms=7)
    axes.axvline(0, color=style.INK, lw=1)
    style.label_rows(axes, names)
    axes.set_xlabel("share of the score's variance [%]")
    axes.set_title(f"Importance of settings, from {importance.trials} trials")
    style.style_axes(axes, "x")
    return figure


def draw_parallel_coordinates(search: SearchResults) -> Figure:
    """Draw each trial as a line through an axis per setting to an axis for the score.

    Bright lines are good trials, the best is thick, failed ones are dashed and end below the score.
    A line dips below an axis if the trial did not use the setting.
    """
    columns = len(search.parameters) + 1
    figure, axes = style.new_figure(min(max(12.5, 1.75 * columns), 26.0), 5.4)
    colours, scale = score_colours(search)
    limits = _limits(search)
    anything_unused = False
    thin = float(np.clip(40 / len(search.trials), 0.3, 0.8))
    for trial in reversed(search.ranked):
        heights = [_height(parameter, trial) for parameter in search.parameters]
        anything_unused |= _UNUSED in heights or not trial.is_scored
        span = limits[1] - limits[0]
        score = trial.score or 0.0
        share = float(np.clip((score - limits[0]) / span, 0, 1))
        heights.append(share if trial.is_scored else _UNUSED)
        best = trial is search.best
        colour = colours(scale(score)) if trial.is_scored else STATUS_COLOURS[trial.status]
        axes.plot(
            range(columns),
            heights,
            color=colour,
            lw=3.2 if best else 1.4,
            ls="-" if trial.is_scored else "--",
            alpha=1.0 if best else thin if trial.is_scored else thin / 2,
            zorder=4 if best else 2,
            marker="o" if best else None,
            mec=style.INK,
        )
    for place, parameter in enumerate(search.parameters):
        _draw_axis(axes, place, _ticks(parameter))
    ticks = np.linspace(*limits, 5)
    _draw_axis(
        axes,
        columns - 1,
        list(zip(np.linspace(0, 1, 5), map(format_setting, ticks.tolist()), strict=True)),
    )
    names = [parameter.name.replace(".", ".\n", 1) for parameter in search.parameters]
    axes.set_xticks(range(columns), [*names, search.objective], fontsize=style.TICK)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.15, columns - 0.45), yticks=[])
    axes.set_ylim(_UNUSED - 0.06 if anything_unused else -0.05, 1.05)
    if anything_unused:
        axes.axhline(_UNUSED, color=style.LINE, ls=":", lw=1, zorder=1)
        text = "not in use, or no score"
        axes.text(-0.13, _UNUSED + 0.015, text, fontsize=style.REMARK, color=style.DIM, va="bottom")
    axes.spines[:].set_visible(False)
    if search.scores:
        score_bar(figure, search, axes)
    figure.suptitle("Parallel coordinates", fontsize=style.FIGURE_TITLE)
    return figure


def _limits(search: SearchResults) -> tuple[float, float]:
    low, high = score_range(search)
    # Good is up.
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    return (low, high) if search.direction == "max" else (high, low)


def _height(parameter: Parameter, trial: TrialRecord) -> float:
    number = parameter.number(trial.values.get(parameter.name))
    if np.isnan(number):
        return _UNUSED
    height = float(parameter.scaled([number])[0])
    if parameter.is_category:
        height += float(style.jitter(trial.number, _SPREAD))
    return height


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.is_category:
        heights = parameter.scaled(np.arange(len(parameter.choices)))
        return list(zip(heights.tolist(), choice_labels(parameter), strict=True))
    low, high = parameter.lowest, parameter.highest
    if parameter.log:
        decades = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
        values = 10.0 ** decades[:: max(len(decades) // 5, 1)]
        values = values if len(values) > 1 else np.geomspace(low, high, 4)
    elif parameter.kind == "int":
        values = np.unique(np.rint(np.linspace(low, high, min(6, int(high - low) + 1))))
    else:
        values = np.linspace(low, high, 5)
    return list(
        zip(parameter.scaled(values).tolist(), map(format_setting, values.tolist()), strict=True)
    )


def _draw_axis(axes: Axes, place: int, ticks: list[tuple[float, str]]) -> None:
    axes.plot([place, place], [-0.02, 1.02], color=style.INK, lw=1, zorder=3)
    for height, text in ticks:
        axes.plot([place - 0.02, place], [height, height], color=style.INK, lw=1, zorder=3)
        axes.text(
            place + 0.03,
            height,
            text,
            fontsize=style.DENSE,
            va="center",
            zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        )


def draw_important_pair(search: SearchResults, encoded: Encoded, names: tuple[str, str]) -> Figure:
    """Draw what a forest guesses over two settings, and the trials upon it in the same colours.

    The guess is the mean over all other settings (partial dependence, Friedman 2001). Where a dot
    differs from its ground the guess is poor.

    Args:
        encoded: Its compared trials as numbers.
        names: The two settings, for the x and the y axis.
    """
    pair = [next(p for p in encoded.parameters if p.name == name) for name in names]
    generator = np.random.default_rng(_SEED)
    table = filled(encoded, generator)
    forest = fit_forest(features(encoded, table), encoded.scores, _SEED)
    numbers = [_grid(parameter) for parameter in pair]
    scaled = [p.scaled(values) for p, values in zip(pair, numbers, strict=True)]
    columns = [encoded.parameters.index(parameter) for parameter in pair]
    guesses = np.empty((len(numbers[1]), len(numbers[0])))
    for row, second in enumerate(scaled[1]):
        changed = np.tile(table, (len(scaled[0]), 1))
        changed[:, columns[0]] = np.repeat(scaled[0], len(table))
        changed[:, columns[1]] = second
        guessed = forest.predict(features(encoded, changed))
        guesses[row] = guessed.reshape(len(scaled[0]), -1).mean(axis=1)
    scores = encoded.scores.tolist()
    colours, scale = score_colours(search, scores)
    figure, axes = style.new_figure(7.6, 5.2)
    for parameter, which in zip(pair, "xy", strict=True):
        parameter_axis(axes, parameter, which)
    axes.pcolormesh(*numbers, guesses, cmap=colours, norm=scale, shading="nearest")
    for trial, score in zip(encoded.trials, scores, strict=True):
        places = [_place(parameter, trial) for parameter in pair]
        best = score == (max(scores) if search.direction == "max" else min(scores))
        axes.plot(
            *places,
            "o",
            color=colours(scale(score)),
            ms=10 if best else 7,
            mec=BEST if best else "white",
            mew=2.2 if best else 1,
        )
    for trial in search.trials:
        if trial.status == "failed":
            places = [_place(parameter, trial) for parameter in pair]
            axes.plot(*places, "x", color=STATUS_COLOURS["failed"], ms=7, mew=2)
    axes.set(xlabel=names[0], ylabel=names[1], title="The two settings that matter most")
    score_bar(figure, search, axes, scores)
    return figure


def _place(parameter: Parameter, trial: TrialRecord) -> float:
    """Return a trial's place on a parameter's axis, with style.jitter inside the cell of a choice.

    It is NaN, which is not drawn, if the trial did not use the setting.
    """
    number = parameter.number(trial.values.get(parameter.name))
    step = style.GOLDEN if parameter.kind == "choice" else style.PLASTIC
    return number + float(style.jitter(trial.number, 0.3, step)) * parameter.is_category


def _grid(parameter: Parameter) -> np.ndarray:
    """Return values of a parameter that cover its range."""
    if parameter.is_category:
        return np.arange(len(parameter.choices), dtype=float)
    low, high = parameter.lowest, parameter.highest
    if parameter.kind == "int" and high - low < _STEPS:
        return np.arange(low, high + 1)
    return np.geomspace(low, high, _STEPS) if parameter.log else np.linspace(low, high, _STEPS)


def score_colours(
    search: SearchResults, scores: Sequence[float] | None = None
) -> tuple[Colormap, Normalize]:
    """Return a colour map and its scale, on which good scores are bright.

    The scale begins at the worse quartile: one trial that learnt nothing would leave all others in
    one colour. `scores` are those to cover, by default those of the search.
    """
    scores = (search.scores if scores is None else scores) or [0.0]
    best, worst = (max, min) if search.direction == "max" else (min, max)
    quartile = float(np.percentile(scores, 25 if search.direction == "max" else 75))
    end = quartile if quartile != best(scores) else worst(scores)
    low, high = sorted((end, best(scores)))
    name = "viridis" if search.direction == "max" else "viridis_r"
    return colormaps[name], Normalize(low, high if high > low else low + 1e-9, clip=True)


def score_bar(
    figure: Figure, search: SearchResults, axes: Axes, scores: Sequence[float] | None = None
) -> None:
    """Add the colour bar of `score_colours`, good scores on top. Arguments as there."""
    colours, scale = score_colours(search, scores)
    beyond = "min" if search.direction == "max" else "max"
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, pad=0.01, extend=beyond)
    if search.direction == "min":
        bar.ax.invert_yaxis()
    bar.set_label(objective_label(search))
