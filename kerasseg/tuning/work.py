"""What a worker does: one trial after the other, until there are no more.

The GPUs of this machine, without starting TensorFlow on them.

Ctrl-C and a scheduler's SIGTERM, for a search with several threads.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from kerasseg.errors import UserError
from kerasseg.tuning.trials import TrialRecord


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, one for each GPU that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        # CUDA itself stops at the first that is no device.
        return names[: names.index("-1")] if "-1" in names else names
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]


def places(parallel: int | str, gpu: int | None) -> list[str | None]:
    """A place for each trial at a time: the GPU that it sees; None for all that this process sees.

    parallel: `search.parallel`. gpu: of --gpu, the only one to be used.
    Raises `UserError` for a GPU that is not there.
    """
    gpus = visible_gpus()
    if gpu is not None:
        if gpu not in range(len(gpus)):
            here = f"{len(gpus)} GPU(s), numbered from 0" if gpus else "no GPU"
            raise UserError(f"--gpu {gpu}: there is {here} here: leave --gpu out, or name one.")
        gpus = [gpus[gpu]]
    count = max(len(gpus), 1) if parallel == "auto" else int(parallel)
    if count == 1:
        return [gpus[0] if gpu is not None else None]
    return [gpus[index % len(gpus)] if gpus else None for index in range(count)]


class SearchStopped(KeyboardInterrupt):
    """The search was asked to stop by the signal `number`; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """One event per worker, so that one of them can be stopped alone, and the signal that stops
    all."""

    def __init__(self, workers: int = 1) -> None:
        self.events = [threading.Event() for _ in range(workers)]
        self.number: int | None = None
        self.all = False

    def set(self) -> None:
        """Stop all."""
        self.all = True
        for event in self.events:
            event.set()

    def raise_if_asked(self) -> None:
        """Raise `SearchStopped` if it was a signal that stopped all."""
        if self.number is not None:
            raise SearchStopped(self.number)


@contextmanager
def stopping(workers: int = 1) -> Iterator[Stop]:
    """What is set by the first signal; a second one of the same kind acts as without this."""
    stop = Stop(workers)
    before: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, before[number])
        print("\nStopping: what is under way saves its state …", flush=True)
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for asked in (signal.SIGINT, signal.SIGTERM):
            before[asked] = signal.signal(asked, remember)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
