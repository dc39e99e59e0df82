"""Keras callbacks that a config names by their import path."""

import importlib
from typing import Any

import keras

from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError

_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)
_RATE_SETTERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
_WATCHERS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)


def user_callbacks(
    experiment: Experiment, *, writing: bool, workers: int = 1
) -> list[keras.callbacks.Callback]:
    """The callbacks of `training.callbacks`.

    Without `writing`, on a machine that is not the chief, those of Keras that write files are left
    out. Raises `UserError` for what cannot be imported or made, and for what would fail or be wrong
    in training.
    """
    made = [
        _make(path, arguments)
        for entry in experiment.training.callbacks
        for path, arguments in entry.items()
    ]
    for callback in made:
        _check(callback, experiment, workers)
    return [c for c in made if writing or not isinstance(c, _WRITERS)]


def _make(path: str, arguments: dict[str, Any]) -> keras.callbacks.Callback:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"training.callbacks: {path} cannot be imported ({error}): give the import path of a "
            "keras.callbacks.Callback; the folder of a module of your own must be in the "
            "environment variable PYTHONPATH."
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, keras.callbacks.Callback)):
        raise UserError(
            f"training.callbacks: {path} is not a keras.callbacks.Callback: name a subclass of it, "
            "such as keras.callbacks.CSVLogger."
        )
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"training.callbacks: {path} does not take the arguments {arguments} ({error}): give "
            "those of its __init__."
        ) from None


def _check(callback: keras.callbacks.Callback, experiment: Experiment, workers: int) -> None:
    name, optimizer = type(callback).__name__, experiment.optimizer
    free = optimizer.schedule == "constant" and not optimizer.warmup_epochs
    if isinstance(callback, _RATE_SETTERS) and not free:
        raise UserError(
            f"training.callbacks: {name} sets the learning rate, and so does "
            f"optimizer.schedule={optimizer.schedule} with "
            f"optimizer.warmup_epochs={optimizer.warmup_epochs}: use schedule=constant and "
            "warmup_epochs=0, or schedule=plateau without that callback."
        )
    if isinstance(callback, _WATCHERS) and callback.mode == "auto":
        if callback.monitor.removeprefix("val_") == "loss":
            return
        # Keras would say so after the first epoch.
        raise UserError(
            f"training.callbacks: {name} cannot know whether {callback.monitor} is to rise or to "
            "fall: add mode: max, or mode: min, to its arguments."
        )
    if isinstance(callback, keras.callbacks.BackupAndRestore) and workers > 1:
        raise UserError(
            "training.callbacks: BackupAndRestore would take one machine back and leave the others "
            "where they are: leave it out and go on with --resume, which takes all."
        )
    if isinstance(callback, keras.callbacks.BackupAndRestore) and optimizer.ema is not None:
        # It is called while the model holds the averages, and would go on to train those.
        raise UserError(
            "training.callbacks: BackupAndRestore does not know the averages of optimizer.ema from "
            "the trained weights: leave it out and go on with --resume, which does."
        )
