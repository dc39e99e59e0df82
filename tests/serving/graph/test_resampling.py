"""A volume onto another grid and back, as SciPy and Pillow do it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasseg.datasets import resample
from kerasseg.datasets.case import Grid
from kerasseg.prediction.prediction import array_case
from kerasseg.serving import graph_volume as graph
from kerasseg.serving.graph_input import Accepted

GRAPHS = {
    size: tf.function(
        lambda volume, size=size: graph.resize_pictures(volume, size),
        input_signature=[tf.TensorSpec((None, None, None, 2))],
    )
    for size in ((20, 24), (6, 5), (31, 12))
}
RESAMPLED = {
    cubic: tf.function(
        lambda volume, scale, shape, cubic=cubic: graph.resample_image(
            volume, scale, shape, cubic=cubic
        ),
        input_signature=[
            tf.TensorSpec((None, None, None, 2)),
            tf.TensorSpec(3, tf.float64),
            tf.TensorSpec(3, tf.int32),
        ],
    )
    for cubic in (False, True)
}
ACCEPTED = Accepted(("t1", "t2"), voxels=10**6, spacing=(1.0, 0.9, 1.2), cubic=False)
TO_GRID = tf.function(
    lambda volume, spacing: graph.to_grid(volume, spacing, ACCEPTED),
    input_signature=[tf.TensorSpec((None, None, None, 2)), tf.TensorSpec(3)],
)
BOX = tf.function(
    lambda old: graph.pillow_matrix(old, 24, graph.box_filter, 0.5),
    input_signature=[tf.TensorSpec((), tf.int32)],
)
AFFINE = np.diag([2.0, 1.0, 0.5, 1.0])


def scan(shape, channels=2, seed=0):
    """Intensities with air at one side, another side in each channel."""
    draw = np.random.default_rng(seed)
    values = draw.normal(100, 20, (*shape, channels)).astype(np.float32)
    values[: shape[0] // 3, ..., 0] = 0
    values[..., 2 * shape[2] // 3 :, 1] = 0
    return values


@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    scale=st.tuples(*[st.sampled_from([0.3, 0.5, 0.77, 1.0, 1.5, 2.2, 3.0])] * 3),
    cubic=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_volumes_are_resampled_as_by_scipy(shape, scale, cubic):
    volume = scan(shape)
    wanted = [max(round(n / s), 1) for n, s in zip(shape, scale, strict=True)]
    there = resample.affine_of(AFFINE, scale)
    expected = resample.resample_image(volume, AFFINE, wanted, there, 3 if cubic else 1)
    steps = tf.constant(scale, tf.float64)
    found = RESAMPLED[cubic](tf.constant(volume), steps, tf.constant(wanted))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-4)
    assert ((found.numpy() == 0) == (expected == 0)).all(), "the same voxels are air"

    maps = np.random.default_rng(1).random((*wanted, 3)).astype(np.float32)
    back = graph.resample_probabilities(tf.constant(maps), steps, tf.constant(shape)).numpy()
    expected = resample.resample_probabilities(maps, there, shape, AFFINE)
    np.testing.assert_allclose(back, expected, atol=1e-6)


@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    factor=st.tuples(*[st.sampled_from([1.0, 1.0005, 0.9995, 1.002, 0.4, 2.6])] * 3),
)
@settings(max_examples=25, deadline=None)
def test_the_grid_of_a_scan_is_that_of_resample_case(shape, factor):
    """A voxel size that is the same but for rounding stays; any other gives the same new shape."""
    spacing = [s * f for s, f in zip(ACCEPTED.spacing, factor, strict=True)]
    case = array_case(scan(shape), spacing, ACCEPTED.modalities)
    expected = resample.resample_case(case, ACCEPTED.spacing, 1)
    found = TO_GRID(tf.constant(case.image), tf.constant(spacing, tf.float32))
    assert bool(found.same) == (expected is case) == all(abs(f - 1) <= 1e-3 for f in factor)
    assert found.volume.shape == expected.image.shape
    np.testing.assert_allclose(found.volume.numpy(), expected.image, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("turned", [0.0, 0.3])
def test_ties_fall_alike_in_arrays_files_and_requests(turned):
    """0.9 mm is another number in float64, in float32 and in the matrix of an oblique file. It
    decides whether 55 voxels of 0.9 mm are 49 or 50 of 1 mm, and every tenth voxel at an edge."""
    volume = scan((55, 24, 24))
    array = array_case(volume, (0.9, 0.9, 0.9), ACCEPTED.modalities)
    assert array.spacing == (float(np.float32(0.9)),) * 3
    cos, sin = np.cos(turned), np.sin(turned)
    turn = np.array([[cos, -sin, 0, 50], [sin, cos, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
    affine = (turn @ array.grid.affine).astype(np.float32).astype(float)
    grid = Grid(array.grid.shape, affine)
    file = dataclasses.replace(array, spacing=grid.spacing, affine=grid.our_affine, grid=grid)
    expected = resample.resample_case(array, (1.0, 1.0, 1.0), 1).image
    assert expected.shape == (50, 22, 22, 2), "49.5 voxels are a tie, which goes to the even number"
    found = resample.resample_case(file, (1.0, 1.0, 1.0), 1).image
    accepted = dataclasses.replace(ACCEPTED, spacing=(1.0, 1.0, 1.0))
    served = graph.to_grid(tf.constant(volume), tf.constant([0.9] * 3, tf.float32), accepted)
    for other in (found, served.volume.numpy()):
        assert ((other == 0) == (expected == 0)).all(), "the same voxels are air"
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-2)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 40), st.integers(2, 40)),
    size=st.sampled_from([(20, 24), (6, 5), (31, 12)]),
)
def test_pictures_are_resized_as_by_pillow(shape, size):
    """As a graph: its optimiser must not change what belongs to a box by a last bit."""
    volume = scan(shape)
    expected = resample.resize_case(array_case(volume, (1.0, 1.0, 1.0), ("t1", "t2")), size).image
    found = GRAPHS[size](tf.constant(volume)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)
    assert ((found == 0) == (expected == 0)).all()


@given(old=st.integers(1, 600))
def test_a_box_is_that_of_pillow_to_the_last_bit(old):
    """The rows of the matrix are what Pillow makes of single pixels."""
    ones = np.eye(old, dtype=np.float32)
    expected = np.asarray(Image.fromarray(ones).resize((24, old), Image.Resampling.BOX)).T
    np.testing.assert_allclose(BOX(tf.constant(old)).numpy(), expected, atol=1e-6)
