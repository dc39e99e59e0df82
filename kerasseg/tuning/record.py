"""What is known of one trial: `trials/<trial_id>.json`."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from kerasseg.errors import UserError
from kerasseg.write_aside import write_aside

BASELINE = "baseline"
"""Trial id of the base experiment as it is, number 0."""
Status = Literal["completed", "stopped", "failed", "running"]
STATUSES: tuple[Status, ...] = get_args(Status)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Score = Annotated[float | None, BeforeValidator(_finite)]
"""One that is not finite is none: it can be neither ranked nor drawn."""


@dataclass
class Execution:
    """One run of a trial.

    run:    its folder, relative to the search's
    score:  None until it is done
    curve:  the objective after each epoch, those of the trial that it went on from included
    peak_memory_gib: of the GPU, without one of the process
    """

    run: str
    score: Score = None
    epochs: int = 0
    minutes: float = 0.0
    curve: list[float] = field(default_factory=list)
    peak_memory_gib: float | None = None

    @property
    def first_epoch(self) -> int:
        """Of the curve, which for a continued training may hold its own epochs only."""
        return max(self.epochs - len(self.curve), 0) + 1


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
    score: Score
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
    def is_baseline(self) -> bool:
        """Whether it is the experiment as it was before the search."""
        return self.number == 0

    @property
    def is_scored(self) -> bool:
        """Whether it ended with a score that can be compared."""
        return self.status == "completed" and self.score is not None

    @property
    def title(self) -> str:
        """What it is called in figures."""
        return "baseline" if self.is_baseline else f"trial {self.number}"

    @property
    def epochs(self) -> int:
        """Of the longest of its executions."""
        return max((execution.epochs for execution in self.executions), default=0)

    @property
    def minutes(self) -> float:
        """Of all its executions; without any, from start to end."""
        if self.executions:
            return sum(execution.minutes for execution in self.executions)
        return max((self.ended or self.started) - self.started, 0.0) / 60

    @property
    def peak_memory_gib(self) -> float | None:
        """Of its executions; None where none was measured."""
        return max((e.peak_memory_gib for e in self.executions if e.peak_memory_gib), default=None)


_RECORD = TypeAdapter(TrialRecord)


def new_record(trial_id: str, values: Mapping[str, Any], plain: dict[str, Any]) -> TrialRecord:
    """Of a trial that begins now; `values` are KerasTuner's, `plain` those of the settings."""
    return TrialRecord(
        trial_id=trial_id,
        number=0 if trial_id == BASELINE else int(trial_id) + 1,
        status="running",
        reason=None,
        score=None,
        values=plain,
        executions=[],
        started=time.time(),
        bracket=values.get("tuner/bracket"),
        round=values.get("tuner/round"),
        epochs_to=values.get("tuner/epochs"),
        continued_from=values.get("tuner/trial_id"),
    )


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
        return _RECORD.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: not readable as the record of a trial: {place and place + ': '}"
            f"{first['msg']}. Remove the file, and the search looks the trial up in its run folder."
        ) from None


def read_records(folder: Path) -> list[TrialRecord]:
    """All trials of a search, in the order of their numbers."""
    paths = (folder / "trials").glob("[!.]*.json")
    return sorted((read_record(path) for path in paths), key=lambda record: record.number)


def best_record(records: list[TrialRecord], direction: str) -> TrialRecord | None:
    """The completed trial of the best score, the baseline included; of equals the first."""
    scored = [record for record in records if record.is_scored]
    sign = 1 if direction == "max" else -1
    return max(scored, key=lambda r: (sign * (r.score or 0.0), -r.number), default=None)
