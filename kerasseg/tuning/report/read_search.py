"""A search as its folder describes it, and its settings as text."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerasseg.config.messages import look_up
from kerasseg.config.tuning import SearchSettings
from kerasseg.errors import UserError
from kerasseg.tuning.search import FILE_NAME, read_search_file
from kerasseg.tuning.space import Parameter, read_space, same
from kerasseg.tuning.trials import TrialRecord, read_records


@dataclass(frozen=True)
class SearchResults:
    """A search that runs or has ended.

    Attributes:
        trials: The trials in the order of their numbers.
        until: The last moment that a file of the search speaks of, in unix seconds.
    """

    folder: Path
    settings: SearchSettings
    parameters: tuple[Parameter, ...]
    trials: tuple[TrialRecord, ...]
    until: float

    @property
    def baseline(self) -> TrialRecord | None:
        """The trial of the experiment as it was before the search, if there is one."""
        return next((trial for trial in self.trials if trial.is_baseline), None)

    @property
    def ranked(self) -> list[TrialRecord]:
        """All trials with the baseline: the best score first, trials without a score last."""
        return sorted(self.trials, key=lambda trial: (not trial.is_scored, self._rank(trial)))

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that was completed, the baseline left out."""
        return next((t for t in self.ranked if t.is_scored and not t.is_baseline), None)

    @property
    def base_is_best(self) -> bool:
        """True if no trial is better than the baseline, which is then what best.yaml holds."""
        return self.best is not None and self.ranked[0].is_baseline

    @property
    def compared(self) -> list[TrialRecord]:
        """The scored trials that did not continue another one, without the baseline.

        In Hyperband's later rounds the best settings come again with more epochs. Only in the
        first round did all settings have the same chance.
        """
        return [
            trial
            for trial in self.trials
            if trial.is_scored and not trial.is_baseline and trial.continued_from is None
        ]

    @property
    def planned_epochs(self) -> list[int]:
        """The different numbers of epochs that the tuner asked for, in rising order."""
        return sorted({trial.epochs_to for trial in self.trials if trial.epochs_to is not None})

    @property
    def scores(self) -> list[float]:
        """The scores of all scored trials with the baseline."""
        return [trial.score for trial in self.trials if trial.is_scored and trial.score is not None]

    @property
    def objective(self) -> str:
        """The metric that the search improves."""
        return self.settings.objective

    @property
    def direction(self) -> str:
        """The direction in which scores are better: "max" or "min"."""
        return self.settings.direction

    def count(self, status: str) -> int:
        """Return the number of trials with a status, the baseline counted."""
        return sum(trial.status == status for trial in self.trials)

    def _rank(self, trial: TrialRecord) -> tuple[float, int]:
        if trial.score is None:
            return math.inf, trial.number
        return -trial.score if self.direction == "max" else trial.score, trial.number


def read_search(folder: Path) -> SearchResults:
    """Read `search.yaml` and `trials/*.json` of a search that runs or has ended.

    Raises `UserError` if the folder is not that of a search, if it has no trial yet, or if a file
    cannot be understood. The message names the file.
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
    trials = [_with_base_values(trial, parameters, content) for trial in records]
    moments = [moment for t in trials for moment in (t.started, t.ended or t.started)]
    moments += [t.started + 60 * t.minutes for t in trials if t.status == "running"]
    return SearchResults(
        folder=folder,
        settings=settings,
        parameters=tuple(_widened(trials, parameter) for parameter in parameters),
        trials=tuple(trials),
        until=max(moments),
    )


def _with_base_values(
    trial: TrialRecord, parameters: Sequence[Parameter], content: Mapping[str, Any]
) -> TrialRecord:
    """Give the baseline its values, which its file lacks, from the base experiment."""
    if not trial.is_baseline or trial.values:
        return trial
    known: dict[str, Any] = {}
    for name in (parameter.name for parameter in parameters):
        written = look_up(content.get("base"), name)
        known[name] = look_up(content.get("experiment"), name) if written is None else written
    active = [p for p in parameters if p.is_active(known)]
    # Null is a value where it may be chosen; elsewhere the base lacks the setting.
    chosen = [p.name for p in active if known[p.name] is not None or None in p.choices]
    return replace(trial, values={name: known[name] for name in chosen})


def _widened(trials: Sequence[TrialRecord], parameter: Parameter) -> Parameter:
    """Widen a parameter to the values of all trials: the baseline may lie outside of the space."""
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


def format_setting(value: Any) -> str:
    """Format the value of a setting in one line, with lists and sections as YAML has them."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_format_item(item) for item in value)}]"
    return f"{{{_format_item(value)}}}" if isinstance(value, dict) else str(value)


def _format_item(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {format_setting(entry)}" for name, entry in value.items())
    return format_setting(value)


def format_range(parameter: Parameter) -> str:
    """Format what is searched, and on which other settings it depends."""
    if parameter.is_category:
        text = ", ".join(map(format_setting, parameter.choices))
    else:
        text = f"{parameter.lowest:.4g} to {parameter.highest:.4g}"
        text += ", logarithmic" if parameter.log else ""
        text += ", whole numbers" if parameter.kind == "int" else ""
    for name, allowed in parameter.when.items():
        text += f"; if {name} is {' or '.join(map(format_setting, allowed))}"
    return text


def choice_labels(parameter: Parameter, lines: int = 3, width: int = 20) -> list[str]:
    """Format the choices of a parameter as labels of an axis, no two the same.

    Args:
        lines: Largest number of lines.
        width: Characters of a line.
    """
    labels = [_shorten(format_setting(choice), lines, width) for choice in parameter.choices]
    if len(set(labels)) < len(labels):
        labels = [f"{n + 1}: {label}" for n, label in enumerate(labels)]
    return labels


def _shorten(text: str, lines: int, width: int) -> str:
    """Break a text into lines and, if it is too long, keep its beginning and its end."""
    found = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(found) > lines:
        half = width * lines // 2 - (2 if lines > 1 else 1)
        found = textwrap.wrap(f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}", width)
    return "\n".join(found)
