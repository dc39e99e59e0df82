"""Callbacks and optimisers of Keras, or of the user, that a config names by their import path."""

import importlib
from collections.abc import Mapping
from typing import Any

import keras

from kerasseg.config.augment import Imported, transforms_of
from kerasseg.config.base import import_object
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import flat_settings
from kerasseg.errors import UserError
from kerasseg.losses.loss import loss_function
from kerasseg.pipeline.augment.compose import imported_function

_RATE_SETTERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
_WATCHERS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)


class WeightsAndBiases(keras.callbacks.Callback):
    """Sends the logs of each epoch, and at the start the settings, to Weights & Biases.

    wandb's own `WandbMetricsLogger` expects a run that was begun by `wandb.init`; this one begins
    it. A run that goes on after a stop stays one run there with `id: NAME, resume: allow`. The
    arguments are those of `wandb.init`, such as `project`, or `mode: offline`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        try:
            self.wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise UserError(
                "training.callbacks: WeightsAndBiases needs the package wandb: pip install wandb, "
                "or leave the callback out."
            ) from None
        self.arguments = arguments
        self.settings: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.run = self.wandb.init(**{"config": self.settings, **self.arguments})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.run.log({"epoch": epoch + 1, **(logs or {})})

    def on_train_end(self, logs: Any = None) -> None:
        self.run.finish()


_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
    WeightsAndBiases,
)


def user_callbacks(
    experiment: Experiment, *, writing: bool, workers: int = 1
) -> list[keras.callbacks.Callback]:
    """Make the callbacks of `training.callbacks`.

    Raises `UserError` for a callback that cannot be imported or made, and for one that would fail
    or be wrong in training.

    Args:
        writing: False, on a machine that is not the chief: leave out callbacks that write files or
            send logs.
        workers: The number of machines.
    """
    setting, base = "training.callbacks", keras.callbacks.Callback
    made = []
    for entry in experiment.training.callbacks:
        for path, arguments in entry.items():
            kind = import_class(setting, path, base, "keras.callbacks.Callback")
            callback = make_instance(setting, path, kind, arguments)
            _check(callback, experiment, workers)
            if isinstance(callback, WeightsAndBiases):
                callback.settings = flat_settings(experiment, type(experiment).model_fields)
            made.append(callback)
    return [c for c in made if writing or not isinstance(c, _WRITERS)]


def check_functions(experiment: Experiment) -> None:
    """Raise `UserError` for a loss or a transform of the user that cannot be imported or called."""
    for term in experiment.loss:
        loss_function(term)
    for transform in transforms_of(experiment.augment):
        if isinstance(transform, Imported):
            imported_function(transform)


def _check(callback: keras.callbacks.Callback, experiment: Experiment, workers: int) -> None:
    """Raise `UserError` for a callback that cannot work with the rest of the experiment."""
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


def import_class(setting: str, path: str, base: type, base_path: str) -> type:
    """Import a class by its path, such as keras.callbacks.CSVLogger.

    Raises `UserError` if it cannot be imported or is another class.

    Args:
        setting: The setting that names it, for messages.
        path: The import path.
        base: The Keras class that it must be a subclass of.
        base_path: The import path of that class, for messages.
    """
    found = import_object(setting, path, f"a {base_path}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{setting}: {path} is not a {base_path}: name a subclass of it.")
    return found


def make_instance(setting: str, path: str, kind: type, arguments: Mapping[str, Any]) -> Any:
    """Make an instance, or raise `UserError` if the class does not take the arguments."""
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{setting}: {path} does not take the arguments {dict(arguments)} ({error}): give "
            "those of its __init__."
        ) from None
