"""Epochs of updates and validation under Keras callbacks, from any update on."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kerasseg.training.averages import averaged_weights
from kerasseg.training.callbacks.stop_on_interrupt import Stopped
from kerasseg.training.state import Progress
from kerasseg.training.training_model import TrainingModel
from kerasseg.training.update import Logs


def run_epochs(
    model: TrainingModel,
    batches: Callable[[int, int], Iterable[object]],
    validation: Iterable[object],
    *,
    epochs: int,
    updates_per_epoch: int,
    validation_steps: int,
    progress: Progress,
    callbacks: keras.callbacks.CallbackList,
    save: Callable[[], None],
) -> None:
    """Train from where `progress` stands to `epochs`, or until `model.stop_training`.

    As Keras's `fit`, with these differences: it can begin and end between any two updates; what
    `on_epoch_end` sees and saves are the averaged weights where the optimiser keeps some; `save`
    is called after each epoch, with the trained weights, and before `Stopped` leaves this function.

    batches:    (epoch, update) -> training batches without end, the first one that of this update
    validation: `validation_steps` batches each time it is iterated
    """
    model.stop_training = False
    model.make_train_function()
    model.make_test_function()
    callbacks.on_train_begin()
    if getattr(model, "_initial_epoch", None):  # Keras's BackupAndRestore sets it
        progress.epochs, progress.step = max(progress.epochs, model._initial_epoch), 0
    iterator = iter(batches(progress.epochs, progress.step))
    logs: Logs = {}
    try:
        while progress.epochs < epochs and not model.stop_training:
            logs = _train(model, iterator, updates_per_epoch, progress, callbacks)
            callbacks.on_test_begin()
            with averaged_weights(model):
                logs = logs | _validate(model, validation, validation_steps, callbacks)
                epoch, progress.epochs = progress.epochs, progress.epochs + 1
                progress.step, progress.logs = 0, {}
                # A TensorBoard of the user that writes every Nth batch would silence all others.
                with tf.summary.record_if(True):
                    callbacks.on_epoch_end(epoch, logs)
            save()
    except Stopped:
        save()
        raise
    callbacks.on_train_end(logs)


def _train(
    model: TrainingModel,
    iterator: Iterator[Any],
    updates: int,
    progress: Progress,
    callbacks: keras.callbacks.CallbackList,
) -> Logs:
    """What is left of the epoch; its metrics."""
    if not progress.step:
        model.reset_metrics()
    callbacks.on_epoch_begin(progress.epochs)
    if progress.step == updates:
        return progress.logs  # it was stopped in its validation
    for step in range(progress.step, updates):
        callbacks.on_train_batch_begin(step)
        logs = model.train_function(iterator)
        progress.step = step + 1
        if progress.step == updates:
            progress.logs = logs = model.results()
        callbacks.on_train_batch_end(step, logs)
        if model.stop_training:  # the rest of the epoch is left out, as in Keras's `fit`
            progress.step, progress.logs = updates, model.results()
            break
    return progress.logs


def _validate(
    model: TrainingModel,
    validation: Iterable[object],
    steps: int,
    callbacks: keras.callbacks.CallbackList,
) -> Logs:
    model.reset_metrics()
    iterator = iter(validation)
    for step in range(steps):
        callbacks.on_test_batch_begin(step)
        callbacks.on_test_batch_end(step, model.test_function(iterator))
    logs = model.results()
    callbacks.on_test_end(logs)
    return {f"val_{name}": value for name, value in logs.items()}
