"""How long a batch takes, measured on random data."""

import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.models.build import build_network
from kerasseg.targets import label_to_masks
from kerasseg.training.devices import Devices
from kerasseg.training.fit import compile_for_training


def time_batches(experiment: Experiment, devices: Devices) -> Iterator[float]:
    """Seconds of one batch after another, each with its update; the first one builds the graph.

    The network is the experiment's, with random weights, in the current dtype policy. A batch is
    made once and lies in memory, so nothing is read.
    """
    settings = experiment.model
    untrained = settings.pretrained.model_copy(update={"weights": "none"})
    settings = settings.model_copy(update={"pretrained": untrained, "init_from": None})
    training = experiment.training.model_copy(update={"gradient_accumulation": 1})
    experiment = experiment.model_copy(update={"model": settings, "training": training})
    with devices.strategy.scope():
        network = build_network(settings, experiment.input_channels)
        model = compile_for_training(experiment, network, updates_per_epoch=1)
    model.make_train_function()
    dataset = tf.data.Dataset.from_tensors(_random_batch(experiment)).repeat()
    batches = iter(devices.distribute(dataset, training.batch_size))
    while True:
        started = time.perf_counter()
        float(model.train_function(batches)["loss"])  # waits for the device
        yield time.perf_counter() - started


def _random_batch(experiment: Experiment) -> tuple[np.ndarray, ...]:
    """As the pipeline's: image (B, *patch, C) float16 and masks (B, *patch, K) uint8."""
    rng = np.random.default_rng(experiment.run.seed)
    shape = (experiment.training.batch_size, *experiment.pipeline.patch_size)
    image = rng.standard_normal((*shape, experiment.input_channels), np.float32)
    label = rng.integers(0, len(anatomy.LABELS), shape, np.uint8)
    masks = label_to_masks(label, experiment.model.target)
    batch = (image.astype(np.float16), masks.astype(np.uint8))
    if experiment.pipeline.augment_on == "host":
        return batch
    return *batch, rng.integers(0, 2**31, (len(image), 2), np.int32)
