"""The score over the two settings that matter most."""

import numpy as np
from matplotlib.figure import Figure

from kerasseg.tuning.parameter import Parameter
from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.report.figures.style import (
    BEST,
    STATUS_COLOURS,
    parameter_axis,
    score_bar,
    score_colours,
)
from kerasseg.tuning.report.score_model import Encoded, features, filled, fit_forest
from kerasseg.tuning.report.search import Search

_STEPS = 40
_SEED = 0


def draw_important_pair(search: Search, encoded: Encoded, names: tuple[str, str]) -> Figure:
    """The forest's mean guess over all other settings (partial dependence, Friedman 2001) as a
    map, the trials upon it in the same colours: where a dot differs from its ground the guess is
    poor."""
    pair = [next(p for p in encoded.parameters if p.name == name) for name in names]
    generator = np.random.default_rng(_SEED)
    table = filled(encoded, generator)
    forest = fit_forest(features(encoded, table), encoded.scores, _SEED)
    numbers = [_numbers(parameter) for parameter in pair]
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
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for parameter, which in zip(pair, "xy", strict=True):
        parameter_axis(axes, parameter, which)
    edges = [_edges(p, values) for p, values in zip(pair, numbers, strict=True)]
    axes.pcolormesh(*edges, guesses, cmap=colours, norm=scale)
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
    """On the parameter's axis, dots of one choice strewn in its cell; NaN is not drawn."""
    number = parameter.number(trial.values.get(parameter.name))
    step = 0.618034 if parameter.kind == "choice" else 0.754878
    return number + 0.3 * (2 * (trial.number * step % 1) - 1) * parameter.is_category


def _numbers(parameter: Parameter) -> np.ndarray:
    if parameter.is_category:
        return np.arange(len(parameter.choices), dtype=float)
    low, high = parameter.lowest, parameter.highest
    if parameter.kind == "int" and high - low < _STEPS:
        return np.arange(low, high + 1)
    return np.geomspace(low, high, _STEPS) if parameter.log else np.linspace(low, high, _STEPS)


def _edges(parameter: Parameter, numbers: np.ndarray) -> np.ndarray:
    """Of cells about the numbers; halfway on the parameter's own scale."""
    places = np.log(numbers) if parameter.log else numbers
    if len(places) == 1:
        edges = np.array([places[0] - 0.5, places[0] + 0.5])
    else:
        middles = (places[1:] + places[:-1]) / 2
        edges = np.concatenate(
            [[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]]
        )
    return np.exp(edges) if parameter.log else edges
