"""Batches that are measured: those of the run's own network, and nothing is read for them."""

from itertools import islice

import numpy as np
import pytest
import tensorflow as tf

from kerasseg import doctor as batch_time
from kerasseg.training.devices import Devices
from tests.conftest import phantom_experiment

ONE = Devices(tf.distribute.get_strategy(), "one CPU")


@pytest.mark.parametrize(
    ("options", "shape", "channels"),
    [
        (
            ("training.batch_size=3", "model.features=[4,6]", "model.deep_supervision=1"),
            (3, 8, 16, 12, 4),
            3,
        ),
        (
            (
                "model.dimensions=2",
                "pipeline.patch_size=[16,12]",
                "pipeline.slices.neighbours=1",
                "model.target=labels",
            ),
            (2, 16, 12, 12),
            4,
        ),
    ],
)
def test_a_batch_is_what_the_pipeline_gives(tmp_path, options, shape, channels):
    experiment = phantom_experiment(tmp_path, *options, "training.gradient_accumulation=4")
    image, masks = batch_time._random_batch(experiment)
    assert image.shape == shape and image.dtype == np.float16
    assert masks.shape == (*shape[:-1], channels) and masks.dtype == np.uint8
    assert 0.9 < image.std() < 1.1 and set(np.unique(masks)) == {0, 1}


def test_each_time_is_that_of_one_batch_with_its_update(
    graphs_as_users_have_them, tmp_path, monkeypatch
):
    """Whatever is accumulated: a measurement must not take 1024 batches."""
    made = []
    original = batch_time.compile_for_training

    def compile_for_training(*arguments, **options):
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(batch_time, "compile_for_training", compile_for_training)
    options = ("training.gradient_accumulation=1024", "model.init_from=runs/nowhere")
    experiment = phantom_experiment(tmp_path, *options)
    times = list(islice(batch_time.time_batches(experiment, ONE), 3))
    assert len(times) == 3 and min(times) > 0
    assert times[0] > max(times[1:]), "the first one builds the graph"
    (model,) = made
    assert model.accumulation == 1 and int(model.optimizer.iterations) == 3


def test_pretrained_weights_are_not_read(tmp_path, monkeypatch):
    class Built(Exception):
        pass

    def build_network(settings, input_channels):
        assert settings.pretrained.weights == "none" and settings.init_from is None
        raise Built

    monkeypatch.setattr("kerasseg.run_experiment.models.build_network", build_network)
    experiment = phantom_experiment(
        tmp_path,
        "model.dimensions=2",
        "pipeline.patch_size=[32,32]",
        "model.features=[32,64,128,256]",
        "model.bottleneck=512",
        "model.network=pretrained_unet",
        "model.pretrained={encoder: mobilenetv2, weights: missing.h5}",
    )
    with pytest.raises(Built):
        next(batch_time.time_batches(experiment, ONE))
