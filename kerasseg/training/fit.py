"""The fit: a network, the store's patches, the callbacks."""

import errno
import sys
from pathlib import Path

import keras
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.errors import UserError, storage_error
from kerasseg.losses.dice_focal import DiceFocal
from kerasseg.metrics.class_dice import ClassDice
from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from kerasseg.records.split import Split
from kerasseg.records.store import RecordStore
from kerasseg.training.callbacks.checkpoints import Checkpoints
from kerasseg.training.callbacks.history import History
from kerasseg.training.callbacks.non_finite import StopOnNonFiniteLoss
from kerasseg.training.callbacks.stop_on_interrupt import StopOnInterrupt
from kerasseg.training.callbacks.validation_images import ValidationImages
from kerasseg.training.optimizer import build_optimizer
from kerasseg.training.state import FILE_NAME, Progress, load_state


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
    checkpoints = folder / "checkpoints"
    progress = Progress()
    if resume and (checkpoints / FILE_NAME).exists():
        model.optimizer.build(model.trainable_variables)
        progress = load_state(checkpoints / FILE_NAME, model)
    if progress.stopped_early or progress.epochs >= training.epochs:
        return progress
    tensorboard = folder / "tensorboard"
    try:
        with StopOnInterrupt() as interrupt:
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
                    History(folder / "history.csv"),
                    keras.callbacks.TensorBoard(tensorboard, write_graph=False),
                    ValidationImages(
                        tensorboard,
                        network,
                        validation,
                        modalities=len(experiment.data.modalities),
                        channels=tuple(anatomy.TARGETS[experiment.model.target]),
                    ),
                    Checkpoints(network, checkpoints, progress, training.early_stopping_patience),
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


def compile_for_training(
    experiment: Experiment, network: keras.Model, steps_per_epoch: int
) -> keras.Model:
    """A compiled twin of `network` that shares its weights.

    The network itself stays uncompiled, so that its checkpoint needs no code of ours to load.
    """
    loss, training = experiment.loss, experiment.training
    channels = anatomy.TARGETS[experiment.model.target]
    metrics = [ClassDice(len(channels), name="dice")]
    metrics += [ClassDice(len(channels), i, name=f"dice_{n}") for i, n in enumerate(channels)]
    model = keras.Model(network.inputs, network.outputs, name=network.name)
    model.compile(
        optimizer=build_optimizer(
            experiment.optimizer,
            training.epochs,
            steps_per_epoch,
            training.gradient_accumulation,
        ),
        loss=DiceFocal(
            dice_weight=loss.dice.weight,
            class_weights=experiment.class_weights,
            smooth=loss.dice.smooth,
            focal_weight=loss.focal.weight,
            gamma=loss.focal.gamma,
        ),
        metrics=metrics,
        # Measured: XLA makes a 3-D step several times slower on a CPU; on GPUs Keras decides.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    return model
