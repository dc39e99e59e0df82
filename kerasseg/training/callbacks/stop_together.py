"""Several machines end after the same epoch."""

from collections.abc import Callable
from typing import Any

import keras


class StopTogether(keras.callbacks.Callback):
    """Stops the training on every machine when a callback before it has stopped it on one.

    A callback that looks at a clock, say, need not decide the same everywhere, and a machine that
    goes on alone would wait for the others for ever. `anywhere` tells each whether one has stopped.
    """

    def __init__(self, anywhere: Callable[[bool], bool]) -> None:
        super().__init__()
        self.anywhere = anywhere

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = self.anywhere(self.model.stop_training)
