"""A search as it stands."""

import math
from dataclasses import dataclass
from pathlib import Path

from kerasseg.settings.tuning import SearchSettings
from kerasseg.tuning.parameter import Parameter
from kerasseg.tuning.record import TrialRecord


@dataclass(frozen=True)
class Search:
    """Its settings, parameters and trials, these by their numbers.

    until: the last moment that a file of the search speaks of, unix seconds
    """

    folder: Path
    settings: SearchSettings
    parameters: tuple[Parameter, ...]
    trials: tuple[TrialRecord, ...]
    until: float

    @property
    def baseline(self) -> TrialRecord | None:
        """The experiment as it was before, if it was trained."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    @property
    def ranked(self) -> list[TrialRecord]:
        """All trials, the best score first, those without a score last; the baseline among them."""
        return sorted(self.trials, key=lambda trial: (not trial.is_scored, self._rank(trial)))

    @property
    def best(self) -> TrialRecord | None:
        """The best searched trial that was completed, not the baseline."""
        return next((t for t in self.ranked if t.is_scored and not t.is_baseline), None)

    @property
    def compared(self) -> list[TrialRecord]:
        """Scored trials that went on from no other, without the baseline.

        In Hyperband's later rounds the best settings come again with more epochs: only in their
        first round were all of them given the same chance.
        """
        return [
            trial
            for trial in self.trials
            if trial.is_scored and not trial.is_baseline and trial.continued_from is None
        ]

    @property
    def planned_epochs(self) -> list[int]:
        """The different lengths of training that the tuner asked for, short ones first."""
        return sorted({trial.epochs_to for trial in self.trials if trial.epochs_to is not None})

    @property
    def scores(self) -> list[float]:
        """Of all scored trials, the baseline among them."""
        return [trial.score for trial in self.trials if trial.is_scored and trial.score is not None]

    @property
    def objective(self) -> str:
        """What the scores are of."""
        return self.settings.objective

    @property
    def direction(self) -> str:
        """Of good scores: max or min."""
        return self.settings.direction

    def count(self, status: str) -> int:
        """Trials of a status, with the baseline."""
        return sum(trial.status == status for trial in self.trials)

    def _rank(self, trial: TrialRecord) -> tuple[float, int]:
        if trial.score is None:
            return math.inf, trial.number
        return -trial.score if self.direction == "max" else trial.score, trial.number
