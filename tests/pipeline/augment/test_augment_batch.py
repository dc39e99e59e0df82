"""Augmentation by the device that trains is that of the host."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.augment import transforms_of
from kerasseg.pipeline.augment.compose import augment_batch
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.records.splits import Split
from kerasseg.run_experiment import build_network
from kerasseg.training.fit import fit
from tests.conftest import phantom_experiment

MANY = (
    "augment.transforms=[{flip: {}}, {scaling: {p: 1.0}}, {gaussian_noise: {p: 0.7}}, "
    "{gamma: {p: 0.5}}, {blur: {p: 0.6}}, {rotate90: {p: 0.5}}, {spatial: {p_rotation: 0.5}}]"
)
FLAT = ("model.dimensions=2", "pipeline.patch_size=[16,16]")
SOLID = ("pipeline.patch_size=[8,16,16]",)


@pytest.mark.parametrize(
    "form",
    [pytest.param(FLAT, id="2d", marks=pytest.mark.all_only), pytest.param(SOLID, id="3d")],
)
def test_batches_are_those_of_the_host(form, phantom_store, tmp_path):
    experiment = phantom_experiment(tmp_path, *form, MANY)
    transforms = transforms_of(experiment.augment)
    patch = Patch.of(experiment.pipeline, 4)

    def batches(**options) -> tf.data.Dataset:
        made = TrainingBatches(
            phantom_store,
            list(phantom_store.rows),
            experiment.pipeline,
            target="subregions",
            batch_size=2,
            seed=1,
            transforms=transforms,
            **options,
        )
        return made.dataset().take(4)

    vary = tf.function(lambda *parts: augment_batch(transforms, *parts, patch))
    changed = 0
    for (image, masks), (plain, plain_masks, seeds) in zip(
        batches(), batches(augment_later=True), strict=True
    ):
        assert seeds.shape == (2, 2)
        found, found_masks = vary(plain, plain_masks, seeds)
        np.testing.assert_allclose(found, image, atol=4e-3)
        np.testing.assert_array_equal(found_masks, masks)
        changed += not np.array_equal(plain, image)
    assert changed == 4


@pytest.mark.all_only  # equal batches are tested above
def test_training_with_it_is_that_of_the_host(phantom_store, tmp_path):
    """Of two epochs, accumulation and all."""
    weights = {}
    for where in ("host", "device"):
        experiment = phantom_experiment(
            tmp_path,
            *FLAT,
            MANY,
            f"pipeline.augment_on={where}",
            "model.features=[4]",
            "model.bottleneck=6",
            "optimizer.name=sgd",
            "training.gradient_accumulation=2",
            "training.epochs=2",
            "training.steps_per_epoch=4",
        )
        keras.utils.set_random_seed(0)
        network = build_network(experiment)
        cases = list(phantom_store.rows)
        folder = tmp_path / where
        (folder / "checkpoints").mkdir(parents=True)
        fit(experiment, network, phantom_store, Split(tuple(cases[:6]), (cases[6],), ()), folder)
        weights[where] = [np.asarray(w) for w in network.get_weights()]
    for host, device in zip(*weights.values(), strict=True):
        np.testing.assert_allclose(device, host, atol=2e-4)
