"""A lower learning rate when the validation Dice does not rise any more."""

from typing import Any

import keras
from keras import ops

from kerasseg.training.state import Progress


class ReduceOnPlateau(keras.callbacks.Callback):
    """Multiplies the learning rate by `factor` after `patience` epochs without a better score.

    It never falls below `lowest`. What it counts from is in `progress`, so a resumed run goes on
    as an uninterrupted one; Keras's `ReduceLROnPlateau` would begin to count anew. To stand behind
    `Checkpoints`, which keeps `progress`.
    """

    def __init__(self, progress: Progress, factor: float, patience: int, lowest: float) -> None:
        super().__init__()
        self.progress = progress
        self.factor = factor
        self.patience = patience
        self.lowest = lowest

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        progress = self.progress
        since = max(progress.best_epoch, progress.reduced_epoch)
        if epoch + 1 - since >= self.patience:
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self.model.optimizer.learning_rate = max(rate * self.factor, self.lowest)
            progress.reduced_epoch = epoch + 1
