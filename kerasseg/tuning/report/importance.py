"""Which settings moved the score."""

from dataclasses import dataclass

import numpy as np

from kerasseg.tuning.report.score_model import Encoded, features, filled, fit_forest

_RESAMPLES = 40
_PERMUTATIONS = 8
_INTERVAL = (5.0, 95.0)


@dataclass(frozen=True)
class Importance:
    """Shares of the score's variance, best guess and interval over resamples of the trials.

    shares:    setting -> (mean, low, high), the greatest first
    explained: R² of the forest on trials that it was not fitted to; 0 or less: it knows nothing
    """

    shares: dict[str, tuple[float, float, float]]
    explained: float
    trials: int


def parameter_importance(encoded: Encoded, seed: int = 0) -> Importance:
    """Permutation importance on held-out trials.

    A forest (Hutter et al. 2014 use the same model in fANOVA) is fitted to a bootstrap of the
    trials. On those that were not drawn, one setting's values are shuffled among the trials: how
    much the squared error grows, over twice the scores' variance, is the setting's share, since
    shuffling a cause of variance V adds an error of 2 V (Gregorutti et al. 2017). 0 and below: no
    effect was seen.
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
        # All at once: the forest's time goes by calls, not by rows.
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


def importance_in_words(importance: Importance) -> str:
    """What the figure is, and how far to believe it."""
    words = (
        f"Estimated from {importance.trials} trials. A random forest guesses the score from the "
        "settings; a bar is the share of the score's variance that is lost when one setting's "
        "values are shuffled among trials that the forest was not fitted to, with the 90 % "
        "interval over resamples of the trials. Of two settings that only act together both are "
        "counted. What the tuner hardly tried, or holds at one value, looks unimportant."
    )
    if importance.explained <= 0:
        return (
            f"{words} Here the forest guesses no better than the mean score (R² "
            f"{importance.explained:.2f}): the bars mean nothing yet."
        )
    return (
        f"{words} The forest explains {100 * importance.explained:.0f} % of the variance of "
        f"trials that it has not seen; so few trials tell the greatest effect from none, and "
        "seldom the second from the third."
    )
