"""The fit: a network, the store's patches, the callbacks."""

import errno
import sys
from pathlib import Path

import keras
import tensorflow as tf

from kerasseg.config import Experiment
from kerasseg.errors import UserError, storage_error
from kerasseg.losses.build import build_loss
from kerasseg.models.encoder_layers import encoder_layers
from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from kerasseg.records.split import Split
from kerasseg.records.store import RecordStore
from kerasseg.training.callbacks.averaged_weights import AveragedWeights
from kerasseg.training.callbacks.checkpoints import Checkpoints
from kerasseg.training.callbacks.epoch_line import EpochLine
from kerasseg.training.callbacks.freeze_encoder import FreezeEncoder
from kerasseg.training.callbacks.history import History
from kerasseg.training.callbacks.non_finite import StopOnNonFiniteLoss
from kerasseg.training.callbacks.reduce_on_plateau import ReduceOnPlateau
from kerasseg.training.callbacks.save_state import SaveState
from kerasseg.training.callbacks.stop_on_interrupt import StopOnInterrupt
from kerasseg.training.callbacks.validation_images import ValidationImages
from kerasseg.training.optimizer import build_optimizer
from kerasseg.training.state import FILE_NAME, Progress, load_state
from kerasseg.training.training_model import TrainingModel


def fit(
    experiment: Experiment,
    network: keras.Model,
    store: RecordStore,
    split: Split,
    folder: Path,
    *,
    resume: bool = False,
) -> Progress:
    """Train `network` in place; checkpoints, history and TensorBoard go into the run `folder`.

    `resume` continues after the last finished epoch. Returns how far the run has come. Raises
    `UserError` when the loss is not finite any more or a record turns out to be damaged.
    """
    training = experiment.training
    batches = TrainingBatches(
        store,
        split.train,
        experiment.pipeline,
        target=experiment.model.target,
        batch_size=training.batch_size,
        seed=experiment.run.seed,
        steps_per_epoch=training.steps_per_epoch,
        steps_multiple=training.gradient_accumulation,
        augmentation=experiment.augment.preset,
    )
    validation = validation_batches(
        store,
        split.validation,
        experiment.pipeline,
        target=experiment.model.target,
        batch_size=training.batch_size,
        seed=experiment.run.seed,
    )
    model = compile_for_training(experiment, network, batches.steps_per_epoch)
    state = folder / "checkpoints" / FILE_NAME
    progress = load_state(state, model) if resume and state.exists() else Progress()
    if progress.stopped_early or progress.epochs >= training.epochs:
        return progress
    frozen = FreezeEncoder(encoder_layers(network), training.freeze_encoder_epochs)
    try:
        with StopOnInterrupt() as interrupt, frozen:
            model.fit(
                batches.dataset(first_epoch=progress.epochs),
                epochs=training.epochs,
                initial_epoch=progress.epochs,
                steps_per_epoch=batches.steps_per_epoch,
                validation_data=validation,
                shuffle=False,  # the batches are shuffled already
                verbose=1 if sys.stdout.isatty() else 2,
                callbacks=[
                    interrupt,
                    StopOnNonFiniteLoss(batches.batch_case_ids),
                    frozen,
                    *_epoch_callbacks(experiment, network, validation, folder, progress),
                ],
            )
    except tf.errors.DataLossError:
        store.check_records(dict.fromkeys([*split.train, *split.validation]))
        raise
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in error.message:  # TensorFlow's word for a full disk, too
            full = OSError(errno.ENOSPC, "No space left on device")
            raise storage_error(full, f"Writing to {folder}", "run.root") from error
        raise UserError(
            f"Memory ran out during training ({str(error.message).splitlines()[0]}): use a smaller "
            "pipeline.patch_size, training.batch_size or model.features."
        ) from error
    return progress


def _epoch_callbacks(
    experiment: Experiment,
    network: keras.Model,
    validation: tf.data.Dataset,
    folder: Path,
    progress: Progress,
) -> list[keras.callbacks.Callback]:
    """What happens after each epoch, in this order."""
    settings, tensorboard = experiment.optimizer, folder / "tensorboard"
    callbacks = [
        History(folder / "history.csv"),  # adds the learning rate to what the next two show
        EpochLine(),
        keras.callbacks.TensorBoard(tensorboard, write_graph=False),
        ValidationImages(
            tensorboard,
            network,
            validation,
            modalities=len(experiment.data.modalities),
            target=experiment.model.target,
        ),
        Checkpoints(
            network,
            folder / "checkpoints",
            progress,
            experiment.training.early_stopping_patience,
        ),
    ]
    if settings.ema is not None:
        # Those above see the averaged weights, the state below holds the trained ones.
        callbacks.append(AveragedWeights())
    if settings.schedule == "plateau":
        lowest = settings.learning_rate * settings.final_fraction
        factor, patience = settings.plateau_factor, settings.plateau_patience
        callbacks.append(ReduceOnPlateau(progress, factor, patience, lowest))
    return [*callbacks, SaveState(folder / "checkpoints" / FILE_NAME, progress)]


def compile_for_training(
    experiment: Experiment, network: keras.Model, steps_per_epoch: int
) -> TrainingModel:
    """A compiled twin of `network` that shares its weights; its optimiser is built."""
    settings = experiment.model
    loss = build_loss(experiment.loss, settings.target)
    model = TrainingModel(network, settings.target, loss, settings.deep_supervision)
    inside = {id(layer) for layer in network.layers}
    heads = [network.get_layer("head"), *(x for x in model.layers if id(x) not in inside)]
    optimizer = build_optimizer(
        experiment.optimizer,
        experiment.training.epochs,
        steps_per_epoch,
        experiment.training.gradient_accumulation,
        encoder=[v for layer in encoder_layers(network) for v in layer.trainable_variables],
        heads=[v for layer in heads for v in layer.trainable_variables],
    )
    model.compile(
        optimizer,
        # Measured: XLA makes a 3-D step several times slower on a CPU; on GPUs Keras decides.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    # Over all variables, while nothing is frozen yet.
    model.optimizer.build(model.trainable_variables)
    return model
