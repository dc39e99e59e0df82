"""What is printed while training: a line that fits a screen."""

from typing import Any

import keras

_LEFT_OUT = ("iou", "precision", "recall")
"""They are in `history.csv` and TensorBoard; of three classes they would fill four lines."""


class EpochLine(keras.callbacks.ProgbarLogger):
    """Keras's own progress bar with loss, Dice per class and learning rate only."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, _short(logs))

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_test_batch_end(batch, _short(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, _short(logs))


def _short(logs: dict[str, Any] | None) -> dict[str, Any] | None:
    if logs is None:
        return None
    return {
        name: value
        for name, value in logs.items()
        if name.removeprefix("val_").split("_")[0] not in _LEFT_OUT
    }
