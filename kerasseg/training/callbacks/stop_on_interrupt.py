"""Ctrl-C and a scheduler's SIGTERM between two batches, never in the middle of a checkpoint."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import keras

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised between two batches, where all that a run needs to go on can be saved.

    `number` is that of the signal: SIGINT of Ctrl-C, SIGTERM of `kill`, Slurm, Kubernetes and the
    clouds' pre-emption.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopOnInterrupt(keras.callbacks.Callback):
    """Used as a context around the training: raises `Stopped` after the batch in progress.

    Python alone would raise `KeyboardInterrupt` wherever it happens to be, also inside
    TensorFlow's callbacks, which swallow it, and SIGTERM would end the process at once. A second
    signal of the same kind acts so. Does nothing outside the main thread, where Python allows no
    handlers.

    `anywhere` tells every machine whether one of them was asked: all stop after the same batch.
    """

    def __init__(self, anywhere: Callable[[bool], bool] = bool) -> None:
        super().__init__()
        self.anywhere = anywhere
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._before[number])

    def _stop(self) -> None:
        if self.anywhere(self.asked is not None):
            raise Stopped(self.asked or signal.SIGTERM)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop()
