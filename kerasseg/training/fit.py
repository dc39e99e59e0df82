"""Fit a network to the patches of a store, under Keras callbacks, from any update on."""

import errno
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasseg.config.augment import transforms_of
from kerasseg.config.experiment import Experiment
from kerasseg.errors import storage_error
from kerasseg.losses.loss import build_loss
from kerasseg.models.sam.network import after_encoder
from kerasseg.models.unet import encoder_layers
from kerasseg.pipeline.augment.compose import augment_batch
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from kerasseg.pipeline.embeddings import open_embeddings
from kerasseg.pipeline.record_cache import DiskCache, open_cache
from kerasseg.private_hooks import initial_epoch
from kerasseg.records.splits import Split
from kerasseg.records.store import RecordStore
from kerasseg.training.callbacks import (
    Checkpoints,
    EpochLine,
    FreezeEncoder,
    History,
    LinesWithinEpoch,
    ReduceOnPlateau,
    SayTakenByOneClass,
    SkippedUpdates,
    StopOnInterrupt,
    StopOnNonFinite,
    Stopped,
    StopTogether,
    save_network,
)
from kerasseg.training.checks import out_of_memory
from kerasseg.training.devices import Devices
from kerasseg.training.optimizers import averaged_weights, build_optimizer
from kerasseg.training.state import FILE_NAME, Progress, load_state, save_state
from kerasseg.training.step import Logs, TrainingModel, vary_dropout
from kerasseg.training.tensorboard import Histograms, ValidationImages

_ONE_DEVICE = Devices(tf.distribute.get_strategy(), "one device")


def fit(
    experiment: Experiment,
    network: keras.Model,
    store: RecordStore,
    split: Split,
    folder: Path,
    *,
    devices: Devices = _ONE_DEVICE,
    state: Path | None = None,
    validators: Sequence[keras.callbacks.Callback] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    last_epoch: int | None = None,
) -> Progress:
    """Train a network in place.

    Returns how far the run has come. Raises `UserError` if loss or gradient are not finite any
    more, if a record is damaged, or if memory or disk are full; `Stopped` after Ctrl-C or SIGTERM
    on any machine, when everything is saved.

    Args:
        network: The network, built under the scope of the strategy of `devices`.
        split: The cases to train and to validate on.
        folder: The run folder, for checkpoints, history and TensorBoard's files.
        state: The state of an earlier run to go on from; None to start anew.
        validators: Callbacks that run first when an epoch ends; the others see what they add to the
            logs.
        callbacks: The user's callbacks.
        last_epoch: End after this epoch of `training.epochs`, whose schedule stays.
    """
    training, pipeline = experiment.training, experiment.pipeline
    if not training.epochs:
        if devices.chief:
            save_network(network, folder / "checkpoints" / "best.keras")
        return Progress()
    cases = dict.fromkeys([*split.train, *split.validation])
    cache = open_cache(pipeline, store, list(cases))
    embeddings = devices.chief_first(
        lambda: open_embeddings(experiment, network, store, list(cases))
    )
    batches, validation = build_batches(
        experiment,
        store,
        split,
        steps_per_epoch=_steps_per_epoch(experiment, len(split.train), state),
        cache=cache,
        augment_later=pipeline.augment_on == "device" and embeddings is None,
        worker=devices.worker,
        workers=devices.workers,
        embeddings=embeddings,
    )
    pictures = validation
    if embeddings is not None:  # which are nothing to look at
        _, pictures = build_batches(experiment, store, split, cache=cache)
    accumulation = training.gradient_accumulation
    updates_per_epoch = batches.steps_per_epoch // accumulation
    with devices.strategy.scope():
        model = compile_for_training(
            experiment, network, updates_per_epoch, embedded=embeddings is not None
        )
    progress = load_state(state, model) if state else Progress(counts_patches=True)
    epochs = min(last_epoch or training.epochs, training.epochs)
    if progress.stopped_early or progress.epochs >= epochs:
        return progress
    vary_dropout(model)

    def case_ids(epoch: int, update: int) -> list[str]:
        steps = range(update * accumulation, (update + 1) * accumulation)
        return [case for step in steps for case in batches.batch_case_ids(epoch, step)]

    def batches_from(epoch: int, update: int) -> Iterable[object]:
        dataset = batches.dataset(epoch, update * accumulation)
        distributed: Iterable[object] = devices.distribute(dataset, training.batch_size)
        return distributed

    def save() -> None:
        save_state(folder / "checkpoints" / FILE_NAME, model, progress, writing=devices.chief)

    frozen = FreezeEncoder(encoder_layers(network), training.freeze_encoder_epochs or 0)
    try:
        with StopOnInterrupt(devices.any_worker) as interrupt, frozen:
            run_epochs(
                model,
                batches_from,
                devices.distribute(validation, training.batch_size),
                epochs=epochs,
                updates_per_epoch=updates_per_epoch,
                validation_steps=int(validation.cardinality()),
                progress=progress,
                callbacks=keras.callbacks.CallbackList(
                    [
                        interrupt,
                        StopOnNonFinite(case_ids),
                        frozen,
                        *validators,
                        *([] if sys.stdout.isatty() or not devices.chief else [LinesWithinEpoch()]),
                        *_epoch_callbacks(
                            experiment, network, pictures, folder, progress, devices.chief
                        ),
                        *callbacks,
                        StopTogether(devices.any_worker),
                    ],
                    add_history=True,
                    model=model,
                    verbose=(1 if sys.stdout.isatty() else 2) if devices.chief else 0,
                    epochs=epochs,
                    steps=updates_per_epoch,
                ),
                save=save,
            )
            interrupt.stop()  # a signal that came after the last batch
    except tf.errors.DataLossError:
        if isinstance(cache, DiskCache):
            cache.check_records()
        store.check_records(cases)
        raise
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in error.message:  # TensorFlow's word for a full disk, too
            full = OSError(errno.ENOSPC, "No space left on device")
            raise storage_error(full, f"Writing to {folder}", "run.root") from error
        raise out_of_memory(experiment, str(error.message), devices) from error
    return progress


def _steps_per_epoch(experiment: Experiment, cases: int, state: Path | None) -> int | None:
    """Return the batches of an epoch where they are given, None where they follow from the cases.

    A run that an earlier version began goes on with epochs of its length, that of whole batches of
    cases, as schedule and unfinished epoch are those of such epochs.
    """
    training = experiment.training
    if training.steps_per_epoch or state is None or load_state(state, None).counts_patches:
        return training.steps_per_epoch
    steps = -(-cases // training.batch_size) * experiment.pipeline.patches_per_volume
    return -(-steps // training.gradient_accumulation) * training.gradient_accumulation


def compile_for_training(
    experiment: Experiment, network: keras.Model, updates_per_epoch: int, *, embedded: bool = False
) -> TrainingModel:
    """Return a compiled model that trains the weights of `network`; its optimiser is built.

    With `embedded` it takes what a SAM's encoder has made of slices. To be called under the scope
    of the strategy that `network` was built under.
    """
    settings, training = experiment.model, experiment.training
    on_device = experiment.pipeline.augment_on == "device" and not embedded
    size = experiment.pipeline.patch_size
    model = TrainingModel(
        after_encoder(network, settings, size) if embedded else network,
        settings.target,
        build_loss(experiment.loss, settings.target),
        settings.deep_supervision,
        training.gradient_accumulation,
        experiment.optimizer.clip_norm,
        _augmentation(experiment) if on_device else None,
        keep_gradients=training.histograms_every is not None,
        saved=network,
        iou_weight=settings.sam.iou_weight if settings.network == "sam" else 0.0,
    )
    optimizer = build_optimizer(
        experiment.optimizer,
        training.epochs,
        updates_per_epoch,
        encoder=[v for layer in encoder_layers(network) for v in layer.trainable_variables],
    )
    jit_compile = training.jit_compile
    if jit_compile == "auto" and (
        training.deterministic or not tf.config.get_visible_devices("GPU")
    ):
        jit_compile = False  # measured: XLA makes a 3-D step several times slower on a CPU
    model.compile(optimizer, jit_compile=jit_compile, auto_scale_loss=False)
    # Over all variables, while nothing is frozen yet.
    model.optimizer.build(model.trainable_variables)
    return model


def _augmentation(experiment: Experiment) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return the function that augments a device's part of a batch."""
    transforms = transforms_of(experiment.augment)
    patch = Patch.of(experiment.pipeline, len(experiment.data.modalities))
    return lambda images, masks, seeds: augment_batch(transforms, images, masks, seeds, patch)


def _epoch_callbacks(
    experiment: Experiment,
    network: keras.Model,
    validation: tf.data.Dataset,
    folder: Path,
    progress: Progress,
    chief: bool,
) -> list[keras.callbacks.Callback]:
    """Return the callbacks that act after each epoch, in their order."""
    settings, tensorboard = experiment.optimizer, folder / "tensorboard"
    history = History(folder / "history.csv")
    callbacks: list[keras.callbacks.Callback] = [
        Checkpoints(
            network,
            folder / "checkpoints",
            progress,
            experiment.training.early_stopping_patience,
            experiment.training.score_smoothing,
        ),
        SkippedUpdates(),
        history,  # shows the learning rate of the epoch, before it falls
        EpochLine(),
        *([SayTakenByOneClass(history)] if chief else []),
        keras.callbacks.TensorBoard(tensorboard, write_graph=False),
        ValidationImages(
            tensorboard,
            network,
            validation,
            modalities=len(experiment.data.modalities),
            target=experiment.model.target,
        ),
    ]
    if every := experiment.training.histograms_every:
        callbacks.append(Histograms(tensorboard, every))
    if settings.schedule == "plateau":
        lowest = settings.learning_rate * settings.final_fraction
        factor, patience = settings.plateau_factor, settings.plateau_patience
        callbacks.append(ReduceOnPlateau(progress, factor, patience, lowest))
    return callbacks


def build_batches(
    experiment: Experiment,
    store: RecordStore,
    split: Split,
    *,
    steps_per_epoch: int | None = None,
    augment_later: bool = False,
    **shared: Any,
) -> tuple[TrainingBatches, tf.data.Dataset]:
    """Return the training batches of an experiment and its validation batches.

    The arguments are those of `TrainingBatches`; `steps_per_epoch` is by default the setting's, and
    `shared` is what `validation_batches` takes, too: cache, worker, workers and embeddings.
    """
    training = experiment.training
    shared["target"], shared["seed"] = experiment.model.target, experiment.run.seed
    shared["batch_size"] = training.batch_size
    batches = TrainingBatches(
        store,
        split.train,
        experiment.pipeline,
        steps_per_epoch=steps_per_epoch or training.steps_per_epoch,
        steps_multiple=training.gradient_accumulation,
        transforms=transforms_of(experiment.augment),
        augment_later=augment_later,
        **shared,
    )
    return batches, validation_batches(store, split.validation, experiment.pipeline, **shared)


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

    This is Keras's `fit` with these differences: it can begin and end between any two updates;
    `on_epoch_end` sees and saves the averaged weights where the optimiser keeps some.

    Args:
        batches: Called as batches(epoch, update); returns endless training batches, the first of
            which is that of this update.
        validation: Gives `validation_steps` batches each time it is iterated.
        epochs: Epochs of the run.
        updates_per_epoch: Updates in an epoch.
        validation_steps: Batches of a validation.
        progress: Where to begin; it is kept up to date.
        save: Called after each epoch, with the trained weights, and when `Stopped` is raised.
    """
    model.stop_training = False
    model.make_train_function()
    model.make_test_function()
    callbacks.on_train_begin()
    if initial_epoch(model):
        progress.epochs, progress.step = max(progress.epochs, initial_epoch(model)), 0
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
    """Train what is left of the epoch and return its metrics."""
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
    """Validate and return the metrics, named val_…"""
    model.reset_metrics()
    iterator = iter(validation)
    for step in range(steps):
        callbacks.on_test_batch_begin(step)
        callbacks.on_test_batch_end(step, model.test_function(iterator))
    logs = model.results()
    callbacks.on_test_end(logs)
    return {f"val_{name}": value for name, value in logs.items()}
