"""`trials.csv`: every trial, by its number."""

import csv
import json
from pathlib import Path
from typing import Any

from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.report.search import Search
from kerasseg.write_aside import write_aside

_BEFORE = ("number", "trial_id", "status", "score")
_AFTER = (
    "epochs",
    "minutes",
    "peak_memory_gib",
    "bracket",
    "round",
    "epochs_to",
    "continued_from",
    "worker",
    "started",
    "ended",
    "runs",
    "reason",
)


def write_trials_csv(path: Path, search: Search) -> None:
    """A row per trial, a column per setting. What is not known or not in use is empty; lists and
    true/false are JSON, times unix seconds, several runs are parted by spaces."""
    names = [parameter.name for parameter in search.parameters]
    with (
        write_aside(path, "search.root") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*_BEFORE, *names, *_AFTER])
        for trial in search.trials:
            before = [trial.number, trial.trial_id, trial.status, _cell(trial.score)]
            values = [_cell(trial.values.get(name)) for name in names]
            writer.writerow([*before, *values, *_after(trial, search.folder)])


def _after(trial: TrialRecord, folder: Path) -> list[Any]:
    cells = [
        trial.epochs,
        round(trial.minutes, 3),
        trial.peak_memory_gib,
        trial.bracket,
        trial.round,
        trial.epochs_to,
        trial.continued_from,
        trial.worker,
        trial.started,
        trial.ended,
        " ".join(str(folder / execution.run) for execution in trial.executions),
        trial.reason,
    ]
    return [_cell(cell) for cell in cells]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | list | dict) else value
