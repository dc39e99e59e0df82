"""A random forest that guesses the score from the settings."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasseg.tuning.parameter import Parameter
from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.report.search import Search

FEWEST_TRIALS = 10
"""Completed trials below which nothing is said about importance."""
_TREES = 64


@dataclass(frozen=True)
class Encoded:
    """Compared trials as numbers.

    table:  (trials, parameters), from 0 to 1 over the space; NaN where a setting was not in use
    scores: (trials,), without what is due to the number of epochs that the tuner asked for
    trials: those of the rows
    """

    parameters: tuple[Parameter, ...]
    table: np.ndarray
    scores: np.ndarray
    trials: tuple[TrialRecord, ...]


def why_no_model(search: Search) -> str:
    """A sentence why the trials say nothing about importance; empty where they do."""
    encoded = encode(search)
    if len(encoded.scores) < FEWEST_TRIALS:
        return (
            f"{len(encoded.scores)} completed trials of different settings are too few to say "
            f"which one matters: {FEWEST_TRIALS} are the fewest."
        )
    if np.ptp(encoded.scores) == 0:
        return "All completed trials have the same score, so no setting can matter."
    return ""


def encode(search: Search) -> Encoded:
    """The compared trials of a search as numbers, choices as their index scaled like the rest.

    Where the tuner gave some trials more epochs than others, as the brackets of Hyperband do, each
    score counts from the mean of those with as many; one that is alone with its epochs is left out.
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
    """The table with a value of another trial wherever a setting was not in use.

    So a conditional setting does not tell the forest the value of the one that it hangs on.
    """
    table = encoded.table.copy()
    for column in table.T:
        missing = np.isnan(column)
        known = column[~missing]
        column[missing] = generator.choice(known, missing.sum()) if known.size else 0.5
    return table


def features(encoded: Encoded, table: np.ndarray) -> np.ndarray:
    """(rows, features) of a filled table (rows, parameters): three and more choices one-hot, since
    they have no order that a tree could split."""
    columns: list[np.ndarray] = []
    for parameter, column in zip(encoded.parameters, table.T, strict=True):
        if parameter.is_category and len(parameter.choices) > 2:
            indices = np.rint(column * (len(parameter.choices) - 1))
            columns += [indices == n for n in range(len(parameter.choices))]
        else:
            columns.append(column)
    return np.stack(columns, axis=1).astype(np.float32)


def fit_forest(inputs: np.ndarray, scores: np.ndarray, seed: int) -> Any:
    """A fitted `sklearn.ensemble.RandomForestRegressor`."""
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed).fit(inputs, scores)
