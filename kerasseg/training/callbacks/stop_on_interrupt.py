"""Ctrl-C between two batches, never in the middle of a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any

import keras


class StopOnInterrupt(keras.callbacks.Callback):
    """Used as a context around `fit`: raises `KeyboardInterrupt` after the batch in progress.

    Python alone would raise it wherever it happens to be, also inside TensorFlow's callbacks,
    which swallow it. A second Ctrl-C acts at once. Does nothing outside the main thread, where
    Python allows no handlers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "StopOnInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)

    def _stop(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop()
