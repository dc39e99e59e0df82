"""What a worker does: one trial after the other, until there are no more."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from kerasseg.tuning.record import TrialRecord

_IDLE_SECONDS = 1.0
"""Until the oracle is asked again where the next trial depends on those under way."""

Run = Callable[[str, Mapping[str, Any]], TrialRecord | None]
"""Trial id and KerasTuner's values -> how it went; None for a trial that another worker has now."""


def work(
    oracle: Any,
    tuner_id: str,
    run: Run,
    objective: str,
    stop: threading.Event,
    ended: Callable[[TrialRecord], None],
) -> None:
    """Run trials of `oracle`, KerasTuner's or its client, until it has none or `stop` is set.

    A trial that is stopped on its way is given back.
    """
    while not stop.is_set():
        trial = oracle.create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED:
            return
        if trial.status == TrialStatus.IDLE:
            stop.wait(_IDLE_SECONDS)
            continue
        record = run(trial.trial_id, trial.hyperparameters.values)
        if record is None:
            continue
        if record.status == "completed":
            oracle.update_trial(trial.trial_id, {objective: record.score})
            trial.status = TrialStatus.COMPLETED
        elif record.status == "failed":
            trial.status = TrialStatus.FAILED
            trial.message = record.reason
        else:
            trial.status = TrialStatus.INVALID
        oracle.end_trial(trial)
        ended(record)
