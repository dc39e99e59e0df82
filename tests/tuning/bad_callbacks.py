"""Callbacks that make a run fail in the ways of real ones."""

import keras


class SpoilWeights(keras.callbacks.Callback):
    """After the first epoch the weights are no numbers any more, as of a rate that is too high."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            for variable in self.model.trainable_variables:
                variable.assign(variable + float("nan"))


class Crash(keras.callbacks.Callback):
    """A mistake in a program."""

    def on_epoch_begin(self, epoch, logs=None):
        raise RuntimeError("a mistake in a program")
