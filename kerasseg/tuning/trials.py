"""The trials of a search: their records, `trials/<number>.json`, and how a worker runs one."""

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
from kerasseg.files import write_json
from kerasseg.tuning.search import Search
from kerasseg.tuning.space import plain_values, with_values
from kerasseg.tuning.trial_process import (
    TrialJob,
    TrialOutcome,
    run_in_process,
    training_so_far,
    trial_environment,
)

BASELINE = "baseline"
"""Trial id of the base experiment without any searched value; its number is 0."""
Status = Literal["completed", "stopped", "failed", "running"]
STATUSES: tuple[Status, ...] = get_args(Status)
Score = Annotated[
    float | None,
    # A score that is not finite can be neither ranked nor drawn.
    BeforeValidator(lambda v: None if isinstance(v, float) and not math.isfinite(v) else v),
]
RunJob = Callable[[TrialJob, Mapping[str, str], threading.Event], TrialOutcome]


@dataclass(frozen=True)
class NextTrial:
    """The answer to a worker that asks for a trial.

    Attributes:
        status: RUNNING, the trial is to be run; IDLE, ask again, as the next one depends on trials
            that are still running; STOPPED, there are no more.
        values: KerasTuner's values, see `plain_values`.
        seconds_left: time until `search.minutes` are over, None without such a limit.
    """

    status: str
    trial_id: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    seconds_left: float | None = None


@dataclass
class Execution:
    """One run of a trial.

    Attributes:
        run: its folder, relative to the search's.
        score: None until it is completed.
        curve: the objective after each epoch, with those of the trial that it continues.
        peak_memory_gib: of the GPU, or of the process where there is none.
    """

    run: str
    score: Score = None
    epochs: int = 0
    minutes: float = 0.0
    curve: list[float] = field(default_factory=list)
    peak_memory_gib: float | None = None

    @property
    def first_epoch(self) -> int:
        """The epoch of the first value of the curve, which may lack those of an earlier trial."""
        return max(self.epochs - len(self.curve), 0) + 1


@dataclass
class TrialRecord:
    """The record of one trial: the values that were tried, and how it went.

    Attributes:
        number: its place in the order of start, from 1; 0 for the baseline.
        reason: why it failed.
        values: settings by their dotted names, only those searched in this trial.
        started, ended: seconds since 1970.
        bracket, round: of hyperband.
        epochs_to: hyperband: the epoch where this round ends.
        continued_from: hyperband: id of the trial whose weights and optimiser it took over.
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
        """True if nothing is left to do for it."""
        return self.status in ("completed", "failed")

    @property
    def is_baseline(self) -> bool:
        """True if it is the base experiment without any searched value."""
        return self.number == 0

    @property
    def is_scored(self) -> bool:
        """True if it was completed with a score that can be compared."""
        return self.status == "completed" and self.score is not None

    @property
    def title(self) -> str:
        """Its name in figures."""
        return "baseline" if self.is_baseline else f"trial {self.number}"

    @property
    def epochs(self) -> int:
        """The epochs of its longest execution."""
        return max((execution.epochs for execution in self.executions), default=0)

    @property
    def minutes(self) -> float:
        """The time of all its executions; without any, the time from start to end."""
        if self.executions:
            return sum(execution.minutes for execution in self.executions)
        return max((self.ended or self.started) - self.started, 0.0) / 60

    @property
    def peak_memory_gib(self) -> float | None:
        """The highest peak of its executions, None where none was measured."""
        return max((e.peak_memory_gib for e in self.executions if e.peak_memory_gib), default=None)


_RECORD = TypeAdapter(TrialRecord)


def trial_number(trial_id: str) -> int:
    """Return the number of a trial, which the screen, its files and the page give it.

    KerasTuner counts its ids from 0, which is the baseline's number.
    """
    return 0 if trial_id == BASELINE else int(trial_id) + 1


def trial_name(folder: Path, trial_id: str) -> str:
    """Return what the files of a trial are called by: its number, such as 0001, or `baseline`.

    Earlier versions called them by KerasTuner's id; a search that has one of these keeps to it.
    """
    older = any((folder / name).exists() for name in ("trials/0000.json", "runs/trial_0000"))
    return (
        trial_id if trial_id == BASELINE or older else f"{trial_number(trial_id):0{len(trial_id)}d}"
    )


def record_path(folder: Path, trial_id: str) -> Path:
    """Return the path of a trial's record in the folder of its search."""
    return folder / "trials" / f"{trial_name(folder, trial_id)}.json"


def write_record(folder: Path, record: TrialRecord) -> None:
    """Write the record of a trial into the folder of its search."""
    path = record_path(folder, record.trial_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record), "search.root")


def read_record(path: Path) -> TrialRecord:
    """Read the record of a trial; raises `UserError` for a file that is none."""
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
    """Read all trials of a search, in the order of their numbers."""
    paths = (folder / "trials").glob("[!.]*.json")
    return sorted((read_record(path) for path in paths), key=lambda record: record.number)


def best_record(records: list[TrialRecord], direction: str) -> TrialRecord | None:
    """Return the completed trial with the best score, the first of equals, or None."""
    scored = [record for record in records if record.is_scored]
    sign = 1 if direction == "max" else -1
    return max(scored, key=lambda r: (sign * (r.score or 0.0), -r.number), default=None)


def trial_experiment(
    search: Search, values: Mapping[str, Any], trial_id: str, execution: int = 0
) -> Experiment:
    """Return the experiment of one run of a trial: the base with `values`.

    The run is `runs/trial_<number>` of the search's folder. Executions, counted from 0, differ in
    `run.seed`; all use the base's record store. Raises `UserError` for values that do not go
    together.
    """
    base, settings = search.base, search.settings
    name = f"trial_{trial_name(search.folder, trial_id)}" + (
        f"_execution_{execution + 1}" if execution else ""
    )
    fixed: dict[str, Any] = {
        "run.name": name,
        "run.root": str(search.folder / "runs"),
        "run.seed": (base.run.seed + execution) % 2**31,
        "records.root": str(base.store_root),
        "training.epochs": search.epochs,
    }
    if settings.patience is not None:
        fixed["training.early_stopping_patience"] = settings.patience
    return with_values(search.values, {**values, **fixed})


def restore_records(search: Search, oracle: Any) -> None:
    """Write records that are gone anew, of trials that the oracle knows to be done.

    It would not give them out again. Their scores are the oracle's, their curves those of the run
    folders. A baseline without a record is run again.
    """
    if search.settings.baseline and not record_path(search.folder, BASELINE).exists():
        oracle.repeat_baseline()
    for trial_id in oracle.end_order:
        path = record_path(search.folder, trial_id)
        if path.exists():
            continue
        trial = oracle.trials[trial_id]
        record = _new_record(search, trial_id, trial.hyperparameters.values)
        record.status = "completed" if trial.status == "COMPLETED" else "failed"
        if record.status == "completed":
            record.score = trial.score
        else:
            record.reason = trial.message or "its record was lost"
        record.executions = _executions_of_run_folders(search, record)
        record.ended = record.started
        write_record(search.folder, record)
        print(f"Restored   {path}, which was gone", flush=True)


def _new_record(search: Search, trial_id: str, values: Mapping[str, Any]) -> TrialRecord:
    """Return the record of a trial that begins now; `values` are KerasTuner's."""
    return TrialRecord(
        trial_id=trial_id,
        number=trial_number(trial_id),
        status="running",
        reason=None,
        score=None,
        values=plain_values(search.space, values),
        executions=[],
        started=time.time(),
        bracket=values.get("tuner/bracket"),
        round=values.get("tuner/round"),
        epochs_to=values.get("tuner/epochs"),
        continued_from=values.get("tuner/trial_id"),
    )


def _executions_of_run_folders(search: Search, record: TrialRecord) -> list[Execution]:
    settings = search.settings
    executions = []
    for number in range(settings.executions_per_trial):
        try:
            experiment = trial_experiment(search, record.values, record.trial_id, number)
        except UserError:
            break  # The trial failed because of this error.
        run = f"runs/{experiment.run_name}"
        training = training_so_far(search.folder / run, settings.objective, settings.direction)
        executions.append(Execution(run, **training))
    return executions


@dataclass
class TrialRunner:
    """Runs the trials of one worker.

    Attributes:
        worker: its name.
        gpu: the GPU that its trials see; None for all that this process sees.
        stop: set when the worker is to stop.
        run_job: runs one execution, in a process of its own unless a test says otherwise.
    """

    search: Search
    worker: str
    gpu: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    run_job: RunJob = run_in_process

    def run(self, trial: NextTrial) -> TrialRecord:
        """Run a trial until it ends or is stopped, resuming what there is of it.

        Raises `UserError` for what is no fault of the trial, as a full disk.
        """
        record = self._begin(trial)
        if record.is_done:
            return record
        deadline = None if trial.seconds_left is None else time.time() + trial.seconds_left
        for number in range(self.search.settings.executions_per_trial):
            if number < len(record.executions) and record.executions[number].score is not None:
                continue
            outcome = self._execute(record, number, deadline)
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

    def _begin(self, trial: NextTrial) -> TrialRecord:
        """Return the record of a trial: the one that an earlier start left, or a new one."""
        folder = self.search.folder
        path = record_path(folder, trial.trial_id)
        new = _new_record(self.search, trial.trial_id, trial.values)
        record = read_record(path) if path.exists() else new
        if record.values != new.values:  # An earlier search was here, and its state was removed.
            for execution in record.executions:
                shutil.rmtree(folder / execution.run, ignore_errors=True)
            record = new
        if not record.is_done:
            record.status, record.reason, record.worker = "running", None, self.worker
            write_record(folder, record)
        return record

    def _execute(self, record: TrialRecord, number: int, deadline: float | None) -> TrialOutcome:
        """Run one execution and write down how it went.

        A process that was killed is run once more, and goes on where it was. One that failed by
        itself would fail again.
        """
        search = self.search
        try:
            experiment = trial_experiment(search, record.values, record.trial_id, number)
        except UserError as error:
            return TrialOutcome("failed", str(error))
        run = experiment.run.root / experiment.run_name
        if number == len(record.executions):
            record.executions.append(Execution(run=os.path.relpath(run, search.folder)))
            write_record(search.folder, record)
        execution = record.executions[number]
        # An earlier version named the run of fold 0 of a split file otherwise.
        execution.run = os.path.relpath(run, search.folder)
        job = self._job(record, number, experiment, deadline)
        environment = trial_environment(self.gpu)
        for attempt in (1, 2):
            outcome = self.run_job(job, environment, self.stop)
            execution.epochs, execution.curve = outcome.epochs, outcome.curve
            execution.minutes = round(execution.minutes + outcome.minutes, 4)
            execution.peak_memory_gib = outcome.peak_memory_gib
            if outcome.status == "completed":
                execution.score = outcome.score
            write_record(search.folder, record)
            if outcome.status != "killed":
                break
            if self.stop.is_set():
                outcome.status, outcome.reason = "stopped", None
                break
            if attempt == 2:
                outcome.reason = f"{outcome.reason}; {attempt} times, so it is given up"
        return outcome

    def _job(
        self, record: TrialRecord, number: int, experiment: Experiment, deadline: float | None
    ) -> TrialJob:
        folder, settings, continue_from = self.search.folder, self.search.settings, None
        if record.continued_from is not None:
            earlier = read_record(record_path(folder, record.continued_from))
            continue_from = folder / earlier.executions[number].run
        return TrialJob(
            folder=folder / "processes" / experiment.run.name,
            experiment=experiment,
            last_epoch=record.epochs_to or self.search.epochs,
            objective=settings.objective,
            direction=settings.direction,
            continue_from=continue_from,
            deadline=deadline,
        )
