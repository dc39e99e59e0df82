"""A callback that ends or holds up its own process at a moment that the environment names.

Named in `training.callbacks` of an experiment, so that `train.py` itself is what is killed.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path

import keras

VARIABLE = "KERASSEG_TEST_KILL"
CALLBACK = "training.callbacks=[{tests.training.killed.Killed: {}}]"


def plan(
    moment: str, count: int, *, number: str = "SIGKILL", delay: float = 0.0, hold: float = 0.0
):
    """The environment that makes the process send itself a signal, `delay` seconds after a moment
    came the `count`-th time; or `hold` it up for some seconds instead.

    moment: update, validation (batch), epoch, end, rename (before and after every one of a file
    that was written aside), or any of them
    """
    settings = {"moment": moment, "count": count, "number": number, "delay": delay, "hold": hold}
    return {VARIABLE: json.dumps(settings)}


class Killed(keras.callbacks.Callback):
    """Does nothing without the variable."""

    def __init__(self):
        super().__init__()
        self.plan = json.loads(os.environ.get(VARIABLE, "null"))
        self.left = self.plan["count"] if self.plan else 0

    def _at(self, moment):
        if not self.plan or self.plan["moment"] not in (moment, "any"):
            return
        self.left -= 1
        if self.left == 0:
            if self.plan["hold"]:
                time.sleep(self.plan["hold"])
            elif self.plan["delay"]:
                threading.Timer(self.plan["delay"], self._end).start()
            else:
                self._end()

    def _end(self):
        os.kill(os.getpid(), getattr(signal, self.plan["number"]))

    def _watch_renames(self):
        replace = Path.replace

        def watched(path, target):
            self._at("rename")
            result = replace(path, target)
            self._at("rename")
            return result

        Path.replace = watched

    def on_train_begin(self, logs=None):
        if self.plan:
            self._watch_renames()

    def on_train_batch_end(self, batch, logs=None):
        self._at("update")

    def on_test_batch_end(self, batch, logs=None):
        self._at("validation")

    def on_epoch_end(self, epoch, logs=None):
        self._at("epoch")

    def on_train_end(self, logs=None):
        self._at("end")
