"""How often the loss scale had to be lowered, in the logs."""

import keras


class SkippedUpdates(keras.callbacks.Callback):
    """Adds `loss_scale` and `skipped_updates`, counted from the start of the run, to the logs of
    each epoch where the loss is scaled (mixed_float16)."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss_scale = self.model.loss_scale
        if logs is not None and loss_scale.dynamic:
            logs["loss_scale"] = float(loss_scale.scale.numpy())
            logs["skipped_updates"] = int(loss_scale.skipped.numpy())
