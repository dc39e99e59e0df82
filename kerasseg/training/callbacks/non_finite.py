"""Stop when the loss is no number any more."""

import math
from collections.abc import Callable
from typing import Any

import keras

from kerasseg.errors import UserError


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises `UserError` with epoch, step and the cases of the batch.

    `case_ids(epoch, step)` names the cases, both counted from 0.
    """

    def __init__(self, case_ids: Callable[[int, int], list[str]]) -> None:
        super().__init__()
        self.case_ids = case_ids
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # Keras logs the epoch's running mean, which is non-finite from the first bad step on.
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            cases = ", ".join(self.case_ids(self.epoch, batch))
            raise UserError(
                f"The loss became {loss} in epoch {self.epoch + 1}, step {batch + 1}, on patches "
                f"of case(s) {cases}: look at these cases, lower optimizer.learning_rate, or set "
                "training.precision=float32. The best checkpoint so far is kept."
            )
