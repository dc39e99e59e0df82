"""The workers of one machine: a thread for each trial at a time, its GPU, and how it is stopped."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from kerasseg.errors import Interrupted, UserError
from kerasseg.tensorflow_setup import ask_nvidia_smi
from kerasseg.tuning.trials import NextTrial, TrialRecord

_IDLE_SECONDS = 1.0
"""Pause before the next question to an oracle that waits for running trials to end."""


class TrialSource(Protocol):
    """The oracle of a search, or a client that asks the oracle of another machine."""

    def next_trial(self, worker: str) -> NextTrial:
        """Return the next trial of a worker."""

    def finish_trial(
        self, trial_id: str, worker: str, status: str, score: float | None, reason: str | None
    ) -> None:
        """Record that a trial has ended."""


def run_trials(
    source: TrialSource,
    worker: str,
    run: Callable[[NextTrial], TrialRecord | None],
    stop: threading.Event,
    on_trial_end: Callable[[TrialRecord], None],
) -> None:
    """Run trials of `source` until it has none left or `stop` is set.

    A trial that was stopped halfway goes back to the source. `run` returns None for a trial that
    meanwhile belongs to another worker.
    """
    while not stop.is_set():
        trial = source.next_trial(worker)
        if trial.status == "STOPPED":
            return
        if trial.status == "IDLE":
            stop.wait(_IDLE_SECONDS)
            continue
        record = run(trial)
        if record is not None:
            source.finish_trial(trial.trial_id, worker, record.status, record.score, record.reason)
            on_trial_end(record)


def visible_gpus() -> list[str]:
    """Return a name for CUDA_VISIBLE_DEVICES for each GPU that this process may use.

    TensorFlow is not asked: it would take memory of every GPU.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        # CUDA itself ignores everything behind -1.
        return names[: names.index("-1")] if "-1" in names else names
    return [number for number in ask_nvidia_smi("index") if number.isdigit()]


def assign_gpus(parallel: int | str, gpu: int | None) -> list[str | None]:
    """Return the GPU of each worker; None lets its trials see all that this process sees.

    Raises `UserError` if there is no such GPU.

    Args:
        parallel: `search.parallel`, the number of workers, or auto for one on each GPU.
        gpu: number of the only GPU to be used, as `--gpu` says.
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


class SearchStopped(Interrupted):
    """A signal stopped the search, whose state is saved."""


class StopEvents:
    """An event for each worker, so that one can be stopped alone, and the signal that stops all."""

    def __init__(self, workers: int = 1) -> None:
        self.events = [threading.Event() for _ in range(workers)]
        self.signal_number: int | None = None
        self.all_stopped = False

    def stop_all(self) -> None:
        """Ask every worker to stop."""
        self.all_stopped = True
        for event in self.events:
            event.set()

    def raise_if_signalled(self) -> None:
        """Raise `SearchStopped` if a signal was the reason to stop."""
        if self.signal_number is not None:
            raise SearchStopped(self.signal_number)


@contextmanager
def stop_on_signals(workers: int = 1) -> Iterator[StopEvents]:
    """Yield events that Ctrl-C or a scheduler's SIGTERM sets.

    The second signal of a kind acts as it would without this context.
    """
    stop = StopEvents(workers)
    handlers: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        signal.signal(number, handlers[number])
        print("\nStopping: what is under way saves its state …", flush=True)
        stop.stop_all()

    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[int(number)] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for handled, handler in handlers.items():
            signal.signal(handled, handler)


def run_in_threads(work: Callable[[int], None], stop: StopEvents) -> None:
    """Call `work` with the number of each worker, all at a time.

    The first failure stops the other workers and is raised when all have ended.
    """
    count = len(stop.events)
    with ThreadPoolExecutor(count) as pool:
        try:
            for ended in as_completed(pool.submit(work, index) for index in range(count)):
                ended.result()
        except BaseException:
            stop.stop_all()
            raise
