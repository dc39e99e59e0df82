"""What is known of one trial: `trials/<trial_id>.json`."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kerasseg.errors import UserError
from kerasseg.write_aside import write_aside

BASELINE = "baseline"
"""Trial id of the base experiment as it is, number 0."""
Status = Literal["running", "completed", "failed", "stopped"]


@dataclass
class Execution:
    """One run of a trial.

    run:    its folder, relative to the search's
    score:  None until it is done
    curve:  the objective after each epoch, those of the trial that it went on from included
    peak_memory_gib: of the GPU, without one of the process
    """

    run: str
    score: float | None = None
    epochs: int = 0
    minutes: float = 0.0
    curve: list[float] = field(default_factory=list)
    peak_memory_gib: float | None = None


@dataclass
class TrialRecord:
    """One trial: what was tried, how it went, and what came of it.

    number:     in the order of start, from 1; of the baseline 0
    reason:     why it failed
    values:     settings by their dotted names, only those searched in this trial
    started, ended: seconds since 1970
    bracket, round, epochs_to, continued_from: of hyperband; `epochs_to` is where this round ends,
                `continued_from` the trial whose weights and optimiser it goes on with
    """

    trial_id: str
    number: int
    status: Status
    reason: str | None
    score: float | None
    values: dict[str, Any]
    executions: list[Execution]
    started: float
    ended: float | None = None
    worker: str | None = None
    bracket: int | None = None
    round: int | None = None
    epochs_to: int | None = None
    continued_from: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.status in ("completed", "failed")

    @property
    def minutes(self) -> float:
        """Of all its executions."""
        return sum(execution.minutes for execution in self.executions)


def record_path(folder: Path, trial_id: str) -> Path:
    """Where a trial's record lies in the folder of its search."""
    return folder / "trials" / f"{trial_id}.json"


def write_record(folder: Path, record: TrialRecord) -> None:
    """Write the record in one step."""
    path = record_path(folder, record.trial_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path, "search.root") as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> TrialRecord:
    """Raises `UserError` for a file that is no such record."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        executions = [Execution(**execution) for execution in values.pop("executions")]
        return TrialRecord(**values, executions=executions)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as the record of a trial ({error}): remove it, and the trial "
            "is looked up in its run folder again."
        ) from None


def read_records(folder: Path) -> list[TrialRecord]:
    """All trials of a search, in the order of their numbers."""
    paths = (folder / "trials").glob("[!.]*.json")
    return sorted((read_record(path) for path in paths), key=lambda record: record.number)


def best_record(records: list[TrialRecord], direction: str) -> TrialRecord | None:
    """The completed trial of the best score, the baseline included; of equals the first."""
    scored = [r for r in records if r.status == "completed" and r.score is not None]
    sign = 1 if direction == "max" else -1
    return max(scored, key=lambda r: (sign * (r.score or 0.0), -r.number), default=None)
