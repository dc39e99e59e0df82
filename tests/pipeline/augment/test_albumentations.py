"""Albumentations in the training pipeline: the same bits, however many threads."""

import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.augment import Albumentations, AugmentSettings, transforms_of
from kerasseg.config.load import load_experiment
from kerasseg.pipeline.augment.compose import Patch, augment
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.records.store import open_store
from kerasseg.slice_transforms import SliceTransforms

pytestmark = pytest.mark.usefixtures("albumentations_is_here")
TERMS = (
    {"Affine": {"rotate": [-20, 20], "p": 0.8}},
    {"ElasticTransform": {"alpha": 20, "sigma": 4, "p": 0.5}},
    {"GaussNoise": {"p": 0.5}},
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return load_experiment(
        None,
        [
            "data.phantom={cases: 3, shape: [16, 20, 18]}",
            f"records.root={tmp_path_factory.mktemp('store')}",
            "model.dimensions=2",
            "pipeline.patch_size=[16,12]",
            "pipeline.slices={neighbours: 1}",
            "model.features=[4,8]",
        ],
    )


@pytest.fixture(scope="module")
def store(experiment):
    return open_store(experiment)


def epoch(experiment, store, threads, seed=5, preset="none"):
    batches = TrainingBatches(
        store,
        list(store.rows),
        experiment.pipeline,
        target="labels",
        batch_size=3,
        seed=seed,
        steps_per_epoch=4,
        transforms=transforms_of(AugmentSettings(albumentations=TERMS, preset=preset)),
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    dataset = batches.dataset().with_options(options)
    return [(image.numpy(), target.numpy()) for image, target in dataset.take(4)]


@pytest.mark.parametrize("preset", ["none", pytest.param("light", marks=pytest.mark.all_only)])
def test_an_epoch_is_replayed_whatever_the_threads(experiment, store, preset):
    one, four = (epoch(experiment, store, threads, preset=preset) for threads in (1, 4))
    for a, b in zip(one, four, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert one[0][0].shape == (3, 16, 12, 12) and one[0][0].dtype == np.float16
    other = epoch(experiment, store, 4, seed=6, preset=preset)
    assert not np.array_equal(one[0][0], other[0][0])


def test_in_the_graph_it_is_what_it_is_outside():
    random = np.random.default_rng(0)
    image = random.normal(size=(14, 10, 3)).astype(np.float16)
    image[:4] = 0
    label = random.integers(0, 4, (14, 10)).astype(np.uint8)
    seed = tf.constant([-3, 9])
    patch = Patch((14, 10), 3, across=0)
    changed, moved = augment([Albumentations(terms=TERMS)], image, label, patch, seed)
    first, second = tf.random.fold_in(seed, 0).numpy().astype(np.uint32)
    expected = SliceTransforms(TERMS, 3)(image, label, int(first) << 32 | int(second))
    assert np.array_equal(changed, expected[0].astype(np.float16))
    assert np.array_equal(moved, expected[1])
    assert not np.array_equal(changed, image)
