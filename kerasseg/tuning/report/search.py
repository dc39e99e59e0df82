"""A search as it stands."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg.tuning.report.parameter import Parameter
from kerasseg.tuning.report.trial import Trial


@dataclass(frozen=True)
class Search:
    """Space and trials, these by their numbers; `settings` is section `search` as it was read.

    until: the last moment that a file of the search speaks of, unix seconds
    """

    folder: Path
    name: str
    objective: str
    direction: str
    tuner: str
    settings: dict[str, Any]
    parameters: tuple[Parameter, ...]
    trials: tuple[Trial, ...]
    until: float

    @property
    def baseline(self) -> Trial | None:
        """The experiment as it was before, if it was trained."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    @property
    def ranked(self) -> list[Trial]:
        """All trials, the best score first, those without a score last; the baseline among them."""
        return sorted(self.trials, key=lambda trial: (not trial.is_scored, self._rank(trial)))

    @property
    def best(self) -> Trial | None:
        """The best searched trial that was completed, not the baseline."""
        return next((t for t in self.ranked if t.is_scored and not t.is_baseline), None)

    @property
    def compared(self) -> list[Trial]:
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

    def is_better(self, score: float, other: float) -> bool:
        """Whether a score is better than another in the search's direction."""
        return score > other if self.direction == "max" else score < other

    def count(self, status: str) -> int:
        """Trials of a status, with the baseline."""
        return sum(trial.status == status for trial in self.trials)

    def _rank(self, trial: Trial) -> tuple[float, int]:
        if math.isnan(trial.score):
            return math.inf, trial.number
        return -trial.score if self.direction == "max" else trial.score, trial.number
