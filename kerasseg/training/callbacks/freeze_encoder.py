"""An encoder that is not trained at first."""

from collections.abc import Sequence
from typing import Any

import keras


class FreezeEncoder(keras.callbacks.Callback):
    """Used as a context around `fit`: the first `epochs` epochs leave `layers` as they are.

    A pretrained encoder is so kept from the large gradients of a decoder that knows nothing yet.
    Frozen layers get no update and no weight decay, and batch normalisation in them runs on its
    stored statistics and leaves them alone. Epochs are counted from the start of the run: one
    resumed behind them trains everything.

    The optimizer's slots are of all trainable variables, the frozen ones too: one that is not
    built yet is built before the first epoch. To restore slots of an earlier run, call
    `optimizer.build(model.trainable_variables)` before `fit`, where no layer is frozen.

    Layers are frozen while batches are trained only: callbacks behind this one in the list
    (moving averages, checkpoints) and the caller find the `trainable` flags as they were, also
    after an interrupt.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], epochs: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.epochs = epochs
        self._flags: tuple[bool, ...] | None = None
        self._traced_frozen: bool | None = None

    def __enter__(self) -> "FreezeEncoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._release()

    def on_train_begin(self, logs: Any = None) -> None:
        self._traced_frozen = None
        if not self.model.optimizer.built:
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        frozen = epoch < self.epochs
        if frozen:
            self._flags = tuple(layer.trainable for layer in self.layers)
            for layer in self.layers:
                layer.trainable = False
        if frozen != self._traced_frozen:
            # Which variables are trained is written into the compiled step.
            self.model.make_train_function(force=True)
            self._traced_frozen = frozen

    def on_test_begin(self, logs: Any = None) -> None:
        self._release()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._release()

    def on_train_end(self, logs: Any = None) -> None:
        self._release()

    def _release(self) -> None:
        if self._flags is not None:
            for layer, flag in zip(self.layers, self._flags, strict=True):
                layer.trainable = flag
            self._flags = None
