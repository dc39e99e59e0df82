"""One trial: its executions one after the other, taken down as they go."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from kerasseg.config import Experiment
from kerasseg.errors import UserError
from kerasseg.tuning.execution import Job, Outcome, environment_on, run_in_process
from kerasseg.tuning.hyperparameters import plain_values
from kerasseg.tuning.record import (
    Execution,
    TrialRecord,
    new_record,
    read_record,
    record_path,
    write_record,
)
from kerasseg.tuning.search import Search
from kerasseg.tuning.trial_experiment import trial_experiment

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
