"""Records of trials that are done, written anew where their files are gone."""

from typing import Any

from keras_tuner.engine.trial import TrialStatus

from kerasseg.errors import UserError
from kerasseg.tuning.hyperparameters import plain_values
from kerasseg.tuning.record import (
    BASELINE,
    Execution,
    TrialRecord,
    new_record,
    record_path,
    write_record,
)
from kerasseg.tuning.search import Search
from kerasseg.tuning.trained_so_far import trained_so_far
from kerasseg.tuning.trial_experiment import trial_experiment


def restore_records(search: Search, oracle: Any) -> None:
    """For trials that the oracle gives out no more: their scores are its own, their curves those of
    the run folders. A baseline without a record is given out again."""
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
