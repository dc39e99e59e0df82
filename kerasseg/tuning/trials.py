"""One trial: its executions one after the other, taken down as they go.

What is known of one trial: `trials/<trial_id>.json`.

Searched values -> the experiment of one execution of a trial.

Records of trials that are done, written anew where their files are gone.
"""

import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError
from kerasseg.files import atomic_write
from kerasseg.tuning.search import Search
from kerasseg.tuning.space import plain_values, with_values
from kerasseg.tuning.trial_process import (
    Job,
    Outcome,
    environment_on,
    run_in_process,
    trained_so_far,
)

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
    with atomic_write(path, "search.root") as temporary:
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


def trial_experiment(
    search: Search, values: Mapping[str, Any], trial_id: str, execution: int = 0
) -> Experiment:
    """The base experiment with `values`, as a run `trial_<id>` of the search's folder.

    Executions, counted from 0, differ in `run.seed`. All use the base's record store. Raises
    `UserError` for values that do not go together.
    """
    base, settings = search.base, search.settings
    name = f"trial_{trial_id}" + (f"_execution_{execution + 1}" if execution else "")
    fixed = {
        "run.name": name,
        "run.root": str(search.folder / "runs"),
        "run.seed": (base.run.seed + execution) % 2**31,
        "records.root": str(base.store_root),
        "training.epochs": search.epochs,
    }
    if settings.patience is not None:
        fixed["training.early_stopping_patience"] = settings.patience
    return with_values(
        search.values, values, *(f"{key}={json.dumps(value)}" for key, value in fixed.items())
    )


def restore_records(search: Search, oracle: Any) -> None:
    """For trials that the oracle gives out no more: their scores are its own, their curves those of
    the run folders. A baseline without a record is given out again."""
    from keras_tuner.engine.trial import TrialStatus  # starts TensorFlow

    if search.settings.baseline and not record_path(search.folder, BASELINE).exists():
        oracle.forget_baseline()
    for trial_id in oracle.end_order:
        if not record_path(search.folder, trial_id).exists():
            trial = oracle.trials[trial_id]
            values = trial.hyperparameters.values
            record = new_record(trial_id, values, plain_values(search.space, values))
            completed = trial.status == TrialStatus.COMPLETED
            record.status = "completed" if completed else "failed"
            record.reason = None if completed else trial.message or "its record was lost"
            record.score = trial.score if completed else None
            record.executions = _executions(search, record)
            record.ended = record.started
            write_record(search.folder, record)
            print(f"Restored   {record_path(search.folder, trial_id)}, which was gone", flush=True)


def _executions(search: Search, record: TrialRecord) -> list[Execution]:
    found = []
    for number in range(search.settings.executions_per_trial):
        try:
            experiment = trial_experiment(search, record.values, record.trial_id, number)
        except UserError:
            break  # it failed by this
        run = f"runs/{experiment.run.name}"
        settings = search.settings
        so_far = trained_so_far(search.folder / run, settings.objective, settings.direction)
        found.append(Execution(run, **so_far))
    return found


RunJob = Callable[[Job, Mapping[str, str], threading.Event], Outcome]
RETRIES = 1
"""Of a process that was killed: it goes on where it was. What failed by itself is not tried again:
it would fail again."""


@dataclass
class TrialRunner:
    """Runs the trials of one worker.

    worker:  its name
    gpu:     the GPU that its trials see; None for what this process sees
    stop:    set when the worker is to stop
    until:   seconds since 1970 when the time of the search is over
    run_job: how an execution is run
    """

    search: Search
    worker: str
    gpu: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    until: float | None = None
    run_job: RunJob = run_in_process

    def run(self, trial_id: str, values: Mapping[str, Any]) -> TrialRecord:
        """Run a trial to its end, or until it is stopped; `values` are KerasTuner's.

        One that was done before this process was started is not done again, one that was under way
        goes on where it was. Raises `UserError` for what is no fault of the trial, as a full disk.
        """
        record = self._begin(trial_id, values)
        if record.is_done:
            return record
        for number in range(self.search.settings.executions_per_trial):
            if number < len(record.executions) and record.executions[number].score is not None:
                continue
            outcome = self._execute(record, number)
            if outcome.status != "completed":
                record.status = "stopped" if outcome.status == "stopped" else "failed"
                record.reason = outcome.reason
                break
        else:
            record.status = "completed"
            record.score = fmean(e.score for e in record.executions if e.score is not None)
        record.ended = time.time() if record.is_done else None
        write_record(self.search.folder, record)
        if record.status == "stopped" and record.reason:
            raise UserError(f"{record.reason}\nThe search ends here; the same command goes on.")
        return record

    def _begin(self, trial_id: str, values: Mapping[str, Any]) -> TrialRecord:
        folder = self.search.folder
        path = record_path(folder, trial_id)
        record = read_record(path) if path.exists() else None
        plain = plain_values(self.search.space, values)
        if record is not None and record.values != plain:  # of a search that was begun anew
            for execution in record.executions:
                shutil.rmtree(folder / execution.run, ignore_errors=True)
            record = None
        if record is None:
            record = new_record(trial_id, values, plain)
        elif record.is_done:
            return record
        record.status, record.reason, record.worker = "running", None, self.worker
        write_record(folder, record)
        return record

    def _execute(self, record: TrialRecord, number: int) -> Outcome:
        """Run one execution, again if it was killed, and take down how it went."""
        search = self.search
        try:
            experiment = trial_experiment(search, record.values, record.trial_id, number)
        except UserError as error:
            return Outcome("failed", str(error))
        run = experiment.run.root / experiment.run_name
        if number == len(record.executions):
            record.executions.append(Execution(run=os.path.relpath(run, search.folder)))
            write_record(search.folder, record)
        job = self._job(record, number, experiment)
        environment = environment_on(self.gpu)
        for attempt in range(RETRIES + 1):
            outcome = self.run_job(job, environment, self.stop)
            execution = record.executions[number]
            execution.epochs, execution.curve = outcome.epochs, outcome.curve
            execution.minutes = round(execution.minutes + outcome.minutes, 4)
            execution.peak_memory_gib = outcome.peak_memory_gib
            if outcome.status == "completed":
                execution.score = outcome.score
            write_record(search.folder, record)
            if outcome.status != "killed" or self.stop.is_set():
                break
            if attempt == RETRIES:
                outcome.reason = f"{outcome.reason}; {attempt + 1} times, so it is given up"
        if outcome.status == "killed" and self.stop.is_set():
            outcome.status, outcome.reason = "stopped", None
        return outcome

    def _job(self, record: TrialRecord, number: int, experiment: Experiment) -> Job:
        settings, before = self.search.settings, None
        if record.continued_from is not None:
            earlier = read_record(record_path(self.search.folder, record.continued_from))
            before = self.search.folder / earlier.executions[number].run
        return Job(
            folder=self.search.folder / "processes" / experiment.run.name,
            experiment=experiment,
            last_epoch=record.epochs_to or self.search.epochs,
            objective=settings.objective,
            direction=settings.direction,
            continue_from=before,
            until=self.until,
        )
