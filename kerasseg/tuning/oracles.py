"""The four tuners: KerasTuner's oracles, kept whole, and mended where they lose trials."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from keras_tuner import Objective, oracles
from keras_tuner.engine.trial import TrialStatus
from sklearn.exceptions import ConvergenceWarning

from kerasseg.tuning.hyperparameters import hyperparameters
from kerasseg.tuning.kept_oracle import KeptOracle
from kerasseg.tuning.search import Search
from kerasseg.tuning.search_file import ORACLE


class RandomOracle(KeptOracle, oracles.RandomSearchOracle):
    """Values drawn at random."""


class BayesianOracle(KeptOracle, oracles.BayesianOptimizationOracle):
    """Values where a Gaussian process hopes for the most.

    What KerasTuner forgets over a stop is kept: the state of its random numbers. And it does not
    try the same values again: where it would, they are drawn.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        with warnings.catch_warnings():
            # That a length scale came to its bound, of which there are few points to tell better.
            warnings.simplefilter("ignore", ConvergenceWarning)
            response: dict[str, Any] = super().populate_space(trial_id)
        if response["values"] is not None and self._duplicate(response["values"]):
            response = self._random_populate_space()
        return response

    def get_state(self) -> dict[str, Any]:
        """With the state of the random numbers."""
        name, keys, *rest = self._random_state.get_state()
        return super().get_state() | {"random_state": [name, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""
        super().set_state(state)
        name, keys, *rest = state["random_state"]
        self._random_state.set_state((name, np.array(keys, np.uint32), *rest))


class GridOracle(KeptOracle, oracles.GridSearchOracle):
    """Every combination.

    What KerasTuner forgets over a stop, after which it would end at once, is kept: which
    combinations have been given out.
    """

    def get_state(self) -> dict[str, Any]:
        """With the list of the combinations."""
        ordered = self._ordered_ids
        return super().get_state() | {
            "populate_next": self._populate_next,
            "ordered": [ordered._memory, list(ordered._next_index.items()), ordered._last_index],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""
        super().set_state(state)
        self._populate_next = state["populate_next"]
        memory, following, last = state["ordered"]
        ordered = self._ordered_ids
        ordered._memory, ordered._last_index = memory, last
        ordered._data_to_index = {trial_id: index for index, trial_id in enumerate(memory)}
        ordered._next_index.update((index, after) for index, after in following)


class HyperbandOracle(KeptOracle, oracles.HyperbandOracle):
    """Many for few epochs, the best of them for more (Li et al. 2018, JMLR 18).

    A failed trial counts as one that lost. KerasTuner counts it as one that is not done: of a round
    in which as many fail as may go on, it lets none go on at all. And it writes down the bracket
    that is filled at the moment where the trial may belong to an earlier one.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        response = self._promotion(trial_id) or super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            response["values"]["tuner/bracket"] = self._bracket_of(trial_id)
        return dict(response)

    def _promotion(self, trial_id: str) -> dict[str, Any] | None:
        """The trial that goes on next, if one can be told from those that are done."""
        self._remove_completed_brackets()
        for bracket in self._brackets:
            number, rounds = bracket["bracket_num"], bracket["rounds"]
            if len(rounds[0]) < self._get_size(number, 0):
                return None
            places = self._get_size(number, 0)
            for later in range(1, len(rounds)):
                before = [self.trials[entry["id"]] for entry in rounds[later - 1]]
                size = min(self._get_size(number, later), places)
                if len(before) == places and all(t.trial_id in self.end_order for t in before):
                    size = min(size, sum(t.status == TrialStatus.COMPLETED for t in before))
                chosen = {entry["past_id"] for entry in rounds[later]}
                left = [trial for trial in before if trial.trial_id not in chosen]
                done = [trial for trial in left if trial.trial_id in self.end_order]
                good = [trial for trial in done if trial.status == TrialStatus.COMPLETED]
                losers, places = places - size, size
                if good and len(chosen) < size and len(done) > losers:
                    sign = -1 if self.objective.direction == "max" else 1
                    best = min(good, key=lambda trial: sign * trial.score)
                    rounds[later].append({"past_id": best.trial_id, "id": trial_id})
                    values = best.hyperparameters.values | {
                        "tuner/trial_id": best.trial_id,
                        "tuner/epochs": self._get_epochs(number, later),
                        "tuner/initial_epoch": self._get_epochs(number, later - 1),
                        "tuner/round": later,
                    }
                    return {"status": TrialStatus.RUNNING, "values": values}
        return None

    def _bracket_of(self, trial_id: str) -> int:
        return next(
            bracket["bracket_num"]
            for bracket in self._brackets
            for entries in bracket["rounds"]
            for entry in entries
            if entry["id"] == trial_id
        )

    @property
    def total(self) -> int:
        """Trials of all rounds, if none fails."""
        return self.hyperband_iterations * sum(
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )


def build_oracle(search: Search) -> Any:
    """The oracle of `search.tuner`, going on with what it had done.

    Raises `UserError` for a state that cannot be read.
    """
    settings = search.settings
    common: dict[str, Any] = {
        "objective": Objective(settings.objective, settings.direction),
        "hyperparameters": hyperparameters(search.space),
        "seed": settings.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": 2**62,  # counted by KeptOracle, which does not raise
    }
    oracle: Any
    match settings.tuner:
        case "random":
            oracle = RandomOracle(**common, max_trials=None)
        case "bayesian":
            oracle = BayesianOracle(**common, max_trials=None)
        case "grid":
            oracle = GridOracle(**common, max_trials=None)
        case "hyperband":
            oracle = HyperbandOracle(
                **common,
                max_epochs=search.epochs,
                factor=settings.factor,
                hyperband_iterations=settings.iterations,
            )
    oracle.verbose = 0
    oracle.keep(
        Path(search.folder) / ORACLE,
        max_trials=settings.max_trials,
        baseline=settings.baseline,
        seconds=None if settings.minutes is None else settings.minutes * 60,
        stop_after_failures=settings.stop_after_failures,
    )
    return oracle
