"""Validation by the averaged weights."""

from typing import Any

import keras

from kerasseg.training.averages import swap_averages


class AveragedWeights(keras.callbacks.Callback):
    """Puts the averages into the network for validation, and the trained weights back.

    They go back when this callback's epoch ends: callbacks before it in the list (pictures,
    checkpoints) see the averages, those behind it (the state to resume from) the trained weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._swapped = False

    def on_test_begin(self, logs: Any = None) -> None:
        swap_averages(self.model)
        self._swapped = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._swapped:
            swap_averages(self.model)
            self._swapped = False
