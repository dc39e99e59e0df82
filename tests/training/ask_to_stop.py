"""A callback that asks a fit to stop, as a scheduler does."""

import signal

import keras


class AskToStop(keras.callbacks.Callback):
    """Raises SIGTERM before batch `number` of an epoch's `train` or `test` part."""

    def __init__(self, epoch, kind, number):
        super().__init__()
        self.moment = epoch, kind, number
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, "train", batch) == self.moment:
            signal.raise_signal(signal.SIGTERM)

    def on_test_batch_begin(self, batch, logs=None):
        if (self.epoch, "test", batch) == self.moment:
            signal.raise_signal(signal.SIGTERM)
