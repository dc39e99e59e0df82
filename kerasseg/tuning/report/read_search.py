"""Read a search's folder.

A search as it stands.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasseg.config.tuning import SearchSettings
from kerasseg.errors import UserError
from kerasseg.tuning.search import FILE_NAME, read_search_file
from kerasseg.tuning.space import Parameter, read_space, same
from kerasseg.tuning.trials import TrialRecord, read_records


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


def read_search(folder: Path) -> Search:
    """Read `search.yaml` and `trials/*.json` of a search that runs or has ended.

    Raises `UserError`, naming the file, for a folder that is none of a search, one without trials,
    and a file that does not say what it should.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; name the one that the search wrote, with "
            "search.yaml and trials/ in it."
        )
    settings, content = read_search_file(folder)
    space = read_space(settings.space, str(folder / FILE_NAME), settings.tuner)
    # In the order of the file, not each after those that it depends on.
    parameters = sorted(space, key=lambda parameter: list(settings.space).index(parameter.name))
    records = read_records(folder)
    if not records:
        raise UserError(
            f"{folder / 'trials'}: no trial is there yet; look again when the first one has begun."
        )
    trials = [_with_values_of_base(trial, parameters, content) for trial in records]
    moments = [moment for t in trials for moment in (t.started, t.ended or t.started)]
    moments += [t.started + 60 * t.minutes for t in trials if t.status == "running"]
    return Search(
        folder=folder,
        settings=settings,
        parameters=tuple(_with_values_of(trials, parameter) for parameter in parameters),
        trials=tuple(trials),
        until=max(moments),
    )


def _with_values_of_base(
    trial: TrialRecord, parameters: Sequence[Parameter], content: Mapping[str, Any]
) -> TrialRecord:
    """The baseline is written without values: they are those of the base, as it is written or by
    default."""
    if not trial.is_baseline or trial.values:
        return trial
    values: dict[str, Any] = {}
    for parameter in parameters:
        for source in (content.get("base"), content.get("experiment")):
            found = _setting_of(source, parameter.name)
            if found is not None:
                values[parameter.name] = found
                break
    known = {parameter.name: values.get(parameter.name) for parameter in parameters}
    active = {parameter.name for parameter in parameters if parameter.is_active(known)}
    return replace(trial, values={name: values[name] for name in values if name in active})


def _setting_of(source: Any, name: str) -> Any:
    for part in name.split("."):
        source = source.get(part) if isinstance(source, Mapping) else None
    return source


def _with_values_of(trials: Sequence[TrialRecord], parameter: Parameter) -> Parameter:
    """Wide enough for the baseline, which need not lie in the space."""
    values = [t.values[parameter.name] for t in trials if parameter.name in t.values]
    if parameter.is_category:
        choices = list(parameter.choices)
        for value in values:
            if not any(same(value, choice) for choice in choices):
                choices.append(value)
        return replace(parameter, choices=tuple(choices))
    numbers = [n for n in map(parameter.number, values) if math.isfinite(n)]
    return replace(
        parameter,
        lowest=min([parameter.lowest, *numbers]),
        highest=max([parameter.highest, *numbers]),
    )
