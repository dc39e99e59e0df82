"""Which settings moved the score, estimated by a random forest."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasseg.tuning.report.read_search import SearchResults
from kerasseg.tuning.space import Parameter
from kerasseg.tuning.trials import TrialRecord

FEWEST_TRIALS = 10
"""Completed trials below which nothing is said about importance."""
_TREES = 64
_RESAMPLES = 40
_PERMUTATIONS = 8
_INTERVAL = (5.0, 95.0)
"""Percentiles of the importance over the resamples."""


@dataclass(frozen=True)
class Encoded:
    """Compared trials as numbers.

    Attributes:
        table: Values (trials, parameters) from 0 to 1 over the space; NaN where a setting was not
            in use.
        scores: Scores (trials,) without the effect of the number of epochs that the tuner asked
            for.
    """

    parameters: tuple[Parameter, ...]
    table: np.ndarray
    scores: np.ndarray
    trials: tuple[TrialRecord, ...]


def why_no_model(search: SearchResults) -> str:
    """Return a sentence on why the trials say nothing about importance, or "" if they do."""
    encoded = encode(search)
    if len(encoded.scores) < FEWEST_TRIALS:
        return (
            f"{len(encoded.scores)} completed trials of different settings are too few to say "
            f"which one matters: {FEWEST_TRIALS} are the fewest."
        )
    if np.ptp(encoded.scores) == 0:
        return "All completed trials have the same score, so no setting can matter."
    return ""


def encode(search: SearchResults) -> Encoded:
    """Turn the compared trials of a search into numbers. A choice becomes its scaled index.

    If the tuner gave some trials more epochs than others, as the brackets of Hyperband do, each
    score counts from the mean of the trials with as many epochs. A trial that is the only one with
    its number of epochs is left out.
    """
    sizes = Counter(trial.epochs_to for trial in search.compared)
    compared = [trial for trial in search.compared if len(sizes) == 1 or sizes[trial.epochs_to] > 1]
    columns = [
        parameter.scaled([parameter.number(t.values.get(parameter.name)) for t in compared])
        for parameter in search.parameters
    ]
    scores = np.array([trial.score for trial in compared])
    levels = np.array([trial.epochs_to or 0 for trial in compared])
    centred = scores.copy()
    for level in np.unique(levels):
        centred[levels == level] += scores.mean() - scores[levels == level].mean()
    return Encoded(search.parameters, np.stack(columns, axis=1), centred, tuple(compared))


def filled(encoded: Encoded, generator: np.random.Generator) -> np.ndarray:
    """Return the table with a value of another trial wherever a setting was not in use.

    Otherwise a conditional setting would tell the forest the value of the setting that it depends
    on.
    """
    table = encoded.table.copy()
    for column in table.T:
        missing = np.isnan(column)
        known = column[~missing]
        column[missing] = generator.choice(known, missing.sum()) if known.size else 0.5
    return table


def features(encoded: Encoded, table: np.ndarray) -> np.ndarray:
    """Turn a filled table (rows, parameters) into the inputs (rows, features) of a forest.

    Three or more choices become one-hot, because they have no order that a tree could split.
    """
    columns: list[np.ndarray] = []
    for parameter, column in zip(encoded.parameters, table.T, strict=True):
        if parameter.is_category and len(parameter.choices) > 2:
            indices = np.rint(column * (len(parameter.choices) - 1))
            columns += [indices == n for n in range(len(parameter.choices))]
        else:
            columns.append(column)
    return np.stack(columns, axis=1).astype(np.float32)


def fit_forest(inputs: np.ndarray, scores: np.ndarray, seed: int) -> Any:
    """Return a `sklearn.ensemble.RandomForestRegressor` that is fitted to the scores."""
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed).fit(inputs, scores)


@dataclass(frozen=True)
class Importance:
    """Importance of the settings.

    Attributes:
        shares: Setting -> (mean, low, high) of its share of the score's variance over resamples of
            the trials, the greatest share first.
        explained: R² of the forest on trials that it was not fitted to. At 0 or below, the forest
            knows nothing.
        trials: Number of trials.
    """

    shares: dict[str, tuple[float, float, float]]
    explained: float
    trials: int


def parameter_importance(encoded: Encoded, seed: int = 0) -> Importance:
    """Measure the permutation importance of each setting on held-out trials.

    A forest (Hutter et al. 2014 use the same model in fANOVA) is fitted to a bootstrap of the
    trials. On the trials that were not drawn, the values of one setting are shuffled. The growth of
    the squared error over twice the variance of the scores is the setting's share, since shuffling
    a cause of variance V adds an error of 2 V (Gregorutti et al. 2017). At 0 and below, no effect
    was seen. `encoded` are the compared trials, at least `FEWEST_TRIALS`.
    """
    generator = np.random.default_rng(seed)
    count, columns = encoded.table.shape
    variance = float(encoded.scores.var())
    grown: list[np.ndarray] = []
    errors: list[float] = []
    while len(grown) < _RESAMPLES:
        drawn = generator.integers(0, count, count)
        held_out = np.setdiff1d(np.arange(count), drawn)
        if held_out.size < 2:
            continue
        table = filled(encoded, generator)
        inputs = features(encoded, table[drawn])
        forest = fit_forest(inputs, encoded.scores[drawn], int(generator.integers(2**31)))
        tables = [table[held_out]]
        for column in range(columns):
            for _ in range(_PERMUTATIONS):
                tables.append(table[held_out])
                tables[-1][:, column] = table[generator.permutation(held_out), column]
        # One call for all tables, because a forest's time depends on calls, not on rows.
        guesses = forest.predict(features(encoded, np.concatenate(tables)))
        distances = guesses.reshape(len(tables), -1) - encoded.scores[held_out]
        squared = (distances**2).mean(axis=1)
        rises = squared[1:].reshape(columns, _PERMUTATIONS).mean(axis=1) - squared[0]
        grown.append(rises / (2 * variance))
        errors.append(float(squared[0]))
    low, high = np.percentile(grown, _INTERVAL, axis=0)
    mean = np.mean(grown, axis=0)
    shares = {
        encoded.parameters[n].name: (float(mean[n]), float(low[n]), float(high[n]))
        for n in np.argsort(-mean, kind="stable")
    }
    return Importance(shares, 1 - float(np.mean(errors)) / variance, count)


def describe_importance(importance: Importance) -> str:
    """Explain the figure of importance, and how far it can be trusted."""
    method = (
        f"Estimated from {importance.trials} trials. A random forest guesses the score from the "
        "settings; a bar is the share of the score's variance that is lost when one setting's "
        "values are shuffled among trials that the forest was not fitted to, with the 90 % "
        "interval over resamples of the trials. Of two settings that only act together both are "
        "counted. What the tuner hardly tried, or holds at one value, looks unimportant."
    )
    if importance.explained <= 0:
        return (
            f"{method} Here the forest guesses no better than the mean score (R² "
            f"{importance.explained:.2f}): the bars mean nothing yet."
        )
    return (
        f"{method} The forest explains {100 * importance.explained:.0f} % of the variance of "
        f"trials that it has not seen; so few trials tell the greatest effect from none, and "
        "seldom the second from the third."
    )
