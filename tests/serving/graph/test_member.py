"""Whole volumes through a graph against `Predictor` and `LoadedRun`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg import anatomy
from kerasseg.config.load import load_experiment
from kerasseg.inference.predictor import Predictor, build_predictor
from kerasseg.inference.windows import WindowGrid
from kerasseg.prediction.model import LoadedRun, Model
from kerasseg.prediction.prediction import array_case
from kerasseg.serving.export import accepted_by
from kerasseg.serving.graph_volume import in_volume
from kerasseg.serving.graph_window import grid_starts
from kerasseg.serving.signatures import ExportedModel, RunGraph, normalised

CASES = {
    "3-D": ("pipeline.patch_size=[8,6,12]", "model.target=regions"),
    "softmax": ("pipeline.patch_size=[4,8,6]", "model.target=labels", "evaluation.overlap=0.3"),
    "whole": (
        "pipeline.patch_size=[4,8,6]",
        "model.target=labels",
        "evaluation.brain_box=false",
        "evaluation.window_batch=3",
        "evaluation.weighting=constant",
    ),
    "flips": (
        "pipeline.patch_size=[6,8,8]",
        "model.target=binary",
        "evaluation.flips=[depth,width]",
        "evaluation.rotations=[axial]",
        "evaluation.window_batch=2",
    ),
    "network alone": ("pipeline.patch_size=[8,6,12]", "evaluation.air_is_background=false"),
    "axial": ("pipeline.patch_size=[8,6]", "evaluation.window_batch=4"),
    "not stripped": (
        "pipeline.patch_size=[8,6]",
        "pipeline.slices.neighbours=1",
        "data.skull_stripped=false",
        "evaluation.overlap=0.25",
    ),
    "coronal": (
        "pipeline.patch_size=[8,6]",
        "pipeline.slices.axis=coronal",
        "pipeline.slices.neighbours=1",
        "evaluation.flips=[depth]",
        "evaluation.overlap=0",
    ),
    "sagittal": (
        "pipeline.patch_size=[4,10]",
        "pipeline.slices.axis=sagittal",
        "pipeline.slices.neighbours=2",
        "evaluation.brain_box=false",
        "evaluation.overlap=0.75",
    ),
}


def network_of(experiment):
    """A convolution, so that a window's edges and its neighbours count; every value differs."""
    keras.utils.set_random_seed(1)
    flat = len(experiment.pipeline.patch_size) == 2
    channels = 2 * (1 + 2 * experiment.pipeline.slices.neighbours) if flat else 2
    target = experiment.model.target
    image = keras.Input((None,) * (2 if flat else 3) + (channels,))
    layer = keras.layers.Conv2D if flat else keras.layers.Conv3D
    found = layer(len(anatomy.TARGETS[target]), 3, padding="same", bias_initializer="ones")(image)
    return keras.Model(image, keras.layers.Activation(anatomy.ACTIVATIONS[target])(found))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Case -> a run, and its probabilities as a graph of a raw volume (D, H, W, 2)."""
    result = {}
    for name, options in CASES.items():
        flat = len(options[0].split(",")) == 2
        experiment = load_experiment(
            None,
            [
                "data.modalities=[t2,flair]",
                "model.features=[4]",
                f"model.dimensions={2 if flat else 3}",
                *options,
            ],
        )
        predictor = Predictor(
            network_of(experiment),
            experiment.pipeline,
            experiment.evaluation,
            target=experiment.model.target,
            skull_stripped=experiment.data.skull_stripped,
        )
        run = LoadedRun(tmp_path_factory.mktemp("run"), experiment, predictor)
        member = RunGraph(run)

        def found(volume, member=member):
            image, box = normalised(volume, skull_stripped=member.predictor.skull_stripped)
            whole = tf.shape(volume)[:3]
            found, box = member.probabilities(image, box, whole)
            return in_volume(found, box, whole, member.predictor.background)

        result[name] = (
            run,
            tf.function(found, [tf.TensorSpec((None, None, None, 2))], autograph=False),
        )
    return result


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None)
@given(st.tuples(*[st.integers(1, 19)] * 3), st.integers(0, 10**6), st.data())
def test_a_graph_gives_what_python_gives(pairs, name, shape, seed, data):
    """Volumes smaller and larger than the window, with air around and within, or nothing else."""
    run, graph = pairs[name]
    noise = np.random.default_rng(seed)
    volume = noise.normal(300, 100, size=(*shape, 2)).astype(np.float32)
    for axis, length in enumerate(shape):
        first = data.draw(st.integers(0, length))
        air = [slice(None)] * 3
        air[axis] = slice(first, first + data.draw(st.integers(0, 9)))
        volume[tuple(air)] = 0
    volume[noise.random(shape) < 0.2] = 0
    expected = run.probabilities(array_case(volume, (1, 1, 1), ("t2", "flair")))
    found = graph(volume).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if run.predictor.settings.air_is_background:
        air = (volume == 0).all(axis=-1)
        np.testing.assert_array_equal(
            found[air], np.broadcast_to(run.predictor.background, found[air].shape)
        )


@given(
    st.tuples(*[st.integers(1, 300)] * 3),
    st.tuples(*[st.integers(2, 130)] * 3),
    st.floats(0, 0.95),
)
def test_the_windows_are_those_of_the_grid(lengths, window, overlap):
    box = tuple(slice(0, n) for n in lengths)
    grid = WindowGrid(box, window, overlap)
    expected = [[max(s, 0) for s in axis] for axis in grid.axes]
    found = grid_starts(tf.constant(lengths), window, overlap).numpy()
    for axis in range(3):
        np.testing.assert_array_equal(np.unique(found[:, axis]), np.unique(expected[axis]))
    assert len(found) == np.prod([len(axis) for axis in expected])


@pytest.mark.parametrize(
    "options",
    [
        ("data.spacing=[1,1,1]", "pipeline.patch_size=[8,6,12]"),
        (
            *("data.layout=image_pairs", "data.root=.", "data.size=[9,14]"),
            *("model.dimensions=2", "pipeline.patch_size=[8,6]", "data.modalities=[red,blue]"),
        ),
    ],
    ids=["volumes", "pictures"],
)
def test_air_of_a_scan_on_another_grid_is_background(options, tmp_path):
    """The way back interpolates between tissue and the air beside it; both engines then clear it,
    and pictures, in which 0 is a dark value among others, are filled up alike."""
    experiment = load_experiment(
        None, ["data.modalities=[t2,flair]", "model.target=binary", "model.features=[4]", *options]
    )
    network = network_of(experiment)
    run = LoadedRun(tmp_path, experiment, build_predictor(experiment, network))
    model = Model([run])
    volume = np.random.default_rng(2).normal(300, 50, (1, 17, 12, 2)).astype(np.float32)
    if experiment.model.dimensions == 3:
        volume = np.random.default_rng(2).normal(300, 50, (6, 17, 12, 2)).astype(np.float32)
    volume[:, 5:9, 3:8] = 0
    spacing = (1.7, 0.8, 0.9)
    found = model.predict(volume, spacing=spacing)
    air = (volume == 0).all(axis=-1)
    assert not found.probabilities[air].any() and not found.label[air].any()
    beside = found.probabilities[:, 4, 3:8]
    assert beside.min() > 0.05, "the network sees tumour everywhere"
    exported = ExportedModel(model, accepted_by(model, 10**6), {0: 0, 1: 1}, {})
    _, served = exported._segment(
        tf.constant(volume), tf.constant(spacing, tf.float32), tf.constant(True)
    )
    assert not served.numpy()[air].any()
    # A resampled value may be rounded to the float16 beside it.
    np.testing.assert_allclose(served.numpy(), found.probabilities, atol=2e-3)
