"""An end at a time of day."""

import time
from typing import Any

import keras


class StopAt(keras.callbacks.Callback):
    """Stops the training at the end of the first epoch after `when`, in seconds since 1970.

    None never does. `stopped` says whether it has.
    """

    def __init__(self, when: float | None) -> None:
        super().__init__()
        self.when = when
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.when is not None and time.time() >= self.when:
            self.stopped = True
            self.model.stop_training = True
