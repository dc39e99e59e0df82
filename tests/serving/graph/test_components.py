"""Components and clean-up in a graph against scipy's."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.postprocessing import ARRAYS, postprocessed_masks
from kerasseg.serving import graph_postprocessing as graph
from kerasseg.serving.graph_postprocessing import GraphOperations, connected_components
from kerasseg.targets import masks_to_label

volumes = st.tuples(
    st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.7])
)
IDS = {0: 0, 1: 7, 2: 5, 3: 255}


@pytest.fixture(scope="module")
def compiled():
    signature = [tf.TensorSpec((None, None, None), tf.bool)]
    return {
        corners: tf.function(lambda m, c=corners: connected_components(m, corners=c), signature)
        for corners in (True, False)
    }


@given(volumes, st.booleans())
def test_components_are_scipys(compiled, drawn, corners):
    """The same components in the same order, and as large."""
    shape, seed, share = drawn
    mask = np.random.default_rng(seed).random(shape) < share
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)) if corners else None)
    found, sizes = (each.numpy() for each in compiled[corners](mask))
    numbers = np.unique(found[mask])
    assert len(numbers) == count
    np.testing.assert_array_equal(np.searchsorted(numbers, found) + 1, np.where(mask, expected, 1))
    assert not found[~mask].any() and sizes[0] == 0
    np.testing.assert_array_equal(sizes[numbers], np.bincount(expected.ravel())[1:])
    assert sizes.sum() == mask.sum()


def test_a_long_way_takes_few_rounds(monkeypatch):
    """A path of 1,300 voxels to and fro: passing a number on from voxel to voxel takes 1,300, and
    from run to run, where it runs across, too."""
    mask = np.zeros((1, 51, 50), bool)
    mask[0, ::2] = True
    mask[0, 1::4, -1] = mask[0, 3::4, 0] = True
    rounds = []
    loop = tf.while_loop

    def counted(condition, body, variables, **options):
        def watched(*values):
            rounds.append(1)
            return body(*values)

        return loop(condition, watched, variables, **options)

    monkeypatch.setattr(tf, "while_loop", counted)
    for path in (mask, mask.transpose(0, 2, 1)):
        rounds.clear()
        found, sizes = connected_components(tf.constant(path), corners=False)
        assert set(found.numpy()[path]) == {1} and sizes[1] == path.sum()
        assert 1 < len(rounds) < 20, len(rounds)


@pytest.mark.parametrize(
    "shape", [(1, 1, 9), (1, 9, 1), (9, 1, 1), (1, 7, 8), (6, 1, 8), (1, 1, 1)]
)
def test_holes_of_rows_and_pictures(shape):
    for seed in range(4):
        mask = np.random.default_rng(seed).random(shape) < 0.6
        found = GraphOperations(tf.constant(shape)).fill_holes(tf.constant(mask))
        np.testing.assert_array_equal(found, ARRAYS.fill_holes(mask))


def cleaning(target, draw):
    """Settings of all that the target's channels can go through."""
    names = anatomy.tumour_channels(target)
    some = st.lists(st.sampled_from(names), unique=True).map(tuple)
    values = {
        "minimum_volume": draw(st.dictionaries(st.sampled_from(names), st.sampled_from([3, 10]))),
        "keep_largest": draw(some),
        "fill_holes": draw(some),
    }
    if "ET" in names:
        values["minimum_enhancing"] = draw(st.sampled_from([0, 30]))
    if target != "labels":
        values["thresholds"] = draw(
            st.dictionaries(st.sampled_from(names), st.sampled_from([0.3, 0.7]))
        )
    return PostprocessingSettings(**values)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(anatomy.TARGETS)), volumes, st.data())
def test_masks_and_labels_are_those_of_numpy(target, drawn, data):
    shape, seed, share = drawn
    wanted = cleaning(target, data.draw)
    spacing = (0.9, 1.0, 1.3)
    noise = np.random.default_rng(seed)
    probabilities = noise.random((*shape, len(anatomy.TARGETS[target]))).astype(np.float32)
    probabilities = np.round(probabilities ** (1 + share), 1)  # equals, and a threshold hit
    expected = postprocessed_masks(probabilities, target, spacing, 0.5, wanted)
    found = graph.postprocessed_masks(
        tf.constant(probabilities), target, tf.constant(spacing), 0.5, wanted, tf.constant(shape)
    )
    np.testing.assert_array_equal(np.stack(found, axis=-1), expected)
    ids = {0: 0, 1: 1} if target == "binary" else IDS
    label = masks_to_label(expected, target)
    np.testing.assert_array_equal(
        graph.label_from_masks(found, target, ids), np.vectorize(ids.get)(label)
    )
