"""Stop when loss or gradient is no number any more."""

from collections.abc import Callable
from typing import Any

import keras

from kerasseg.errors import UserError
from kerasseg.training.update import FINITE, LOSS_NOT_FINITE


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises `UserError` with epoch, update and the cases of its batches.

    The weights are those before that update. Gradients that a smaller loss scale mends do not
    count. `case_ids(epoch, update)` names the cases, both counted from 0.
    """

    def __init__(self, case_ids: Callable[[int, int], list[str]]) -> None:
        super().__init__()
        self.case_ids = case_ids
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        failure = self.model.failure.numpy()
        if failure != FINITE:
            what = "loss" if failure == LOSS_NOT_FINITE else "gradient"
            cases = ", ".join(dict.fromkeys(self.case_ids(self.epoch, batch)))
            raise UserError(
                f"The {what} is not finite in epoch {self.epoch + 1}, step {batch + 1}, on patches "
                f"of case(s) {cases}: look at these cases, lower optimizer.learning_rate, or set "
                "training.precision=float32. The best checkpoint so far is kept, and the state "
                "after the last whole epoch."
            )
