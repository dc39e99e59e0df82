from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config.experiment import PipelineSettings, SliceSettings
from kerasseg.pipeline.sampling import AXES, draw_slice, sample_slice
from tests.pipeline.stored import record_and_volumes
from tests.records.random_case import random_case

DRAWS = 600


def layered(tumour: tuple[int, ...] = (2, 3, 5), axis: int = 0):
    """A volume of 8 slices along `axis` of which 1 and 6 are empty, with tumour on some."""
    case = random_case((8, 8, 8), brain=1.0, tumour=0)
    image, label = (np.moveaxis(a, axis, 0) for a in (case.image, case.label))
    image[[1, 6]] = 0
    for index in tumour:
        label[index, 3:5, 4] = 1 + index % 3
    return record_and_volumes(case)[0]


def drawn_slices(record, **chosen) -> Counter:
    draw = tf.function(lambda seed: sample_slice(record, SliceSettings(**chosen), seed))
    return Counter(int(draw(tf.constant([i, 4]))) for i in range(DRAWS))


def assert_even(counts: Counter, wanted: set[int], total: int | None = None) -> None:
    assert set(counts) == wanted
    expected = (total or DRAWS) / len(wanted)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values()), counts


@pytest.mark.parametrize("axis", AXES)
def test_only_slices_to_keep_are_drawn_each_as_often(axis):
    record = layered(axis=AXES[axis])
    assert_even(drawn_slices(record, axis=axis, keep="all"), set(range(8)))
    assert_even(drawn_slices(record, axis=axis, keep="brain"), {0, 2, 3, 4, 5, 7})
    assert_even(drawn_slices(record, axis=axis, keep="tumour"), {2, 3, 5})


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_empty_slices_is_kept(share):
    counts = drawn_slices(layered(), keep="brain", empty_share=share)
    empty = Counter({i: n for i, n in counts.items() if i in (0, 4, 7)})
    tumour = counts - empty
    assert abs(empty.total() / DRAWS - share) < 0.08
    if share:
        assert_even(empty, {0, 4, 7}, empty.total())
    if share < 1:
        assert_even(tumour, {2, 3, 5}, tumour.total())


def test_a_volume_without_the_wanted_kind_gives_the_other():
    brain = {0, 2, 3, 4, 5, 7}
    assert_even(drawn_slices(layered(()), keep="brain", empty_share=0.0), brain)
    assert_even(drawn_slices(layered(()), keep="tumour"), brain)
    assert_even(drawn_slices(layered(()), keep="tumour", empty_share=0.0), brain)
    everywhere = layered(tuple(range(8)))
    assert_even(drawn_slices(everywhere, keep="all", empty_share=1.0), set(range(8)))


def test_tumour_share_of_the_patches_are_centred_on_tumour_voxels_of_the_slice():
    case = random_case((5, 30, 40), brain=1.0, tumour=0)
    case.label[2, 9, 21], case.label[2, 20, 15], case.label[3, 28, 38] = 1, 3, 2
    # Of the whole volume only one voxel per class is listed; a slice must not depend on it.
    record, _, _ = record_and_volumes(case, foreground_voxels=1)
    counts = Counter()
    for share in (1.0, 0.5):
        chosen = PipelineSettings(
            patch_size=(6, 8),
            tumour_share=share,
            slices=SliceSettings(keep="tumour"),
        )
        draw = tf.function(lambda seed, chosen=chosen: draw_slice(record, chosen, seed))
        for i in range(300):
            _, label = draw(tf.constant([i, 1]))
            for place in np.argwhere(label.numpy()):
                class_id = label.numpy()[tuple(place)]
                counts[(share, class_id, *map(int, place))] += 1
    centres = [(1.0, 1, 3, 4), (1.0, 3, 3, 4), (1.0, 2, 4, 6)]
    assert sum(counts[c] for c in centres) == 300, "the last is pushed in by the edge"
    assert abs(counts[centres[0]] - 75) < 40 and abs(counts[centres[1]] - 75) < 40
    halves = sum(counts[(0.5, *centre[1:])] for centre in centres)
    assert 120 < halves < 190


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 19)),
    st.sampled_from(sorted(AXES)),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["all", "brain", "tumour"]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.2, 1.0]),
    st.integers(0, 999),
)
def test_a_slice_with_its_neighbours_is_the_dense_one(
    shape, axis, neighbours, keep, tumour, brain, seed
):
    """Values tell where a voxel came from, so one match is proof of place and order."""
    case = random_case(shape, channels=3, brain=brain, tumour=tumour, seed=seed)
    case.image[(0,) * 3] = 1.0  # a case without any signal is refused before
    record, image, label = record_and_volumes(case)
    chosen = PipelineSettings(
        patch_size=(5, 6), slices=SliceSettings(axis=axis, keep=keep, neighbours=neighbours)
    )
    seed = tf.constant([seed, 3])
    patch, target = (t.numpy() for t in draw_slice(record, chosen, seed))
    assert patch.shape == (5, 6, 3 * (2 * neighbours + 1)) and target.shape == (5, 6)
    index = int(sample_slice(record, chosen.slices, tf.random.fold_in(seed, 0)))
    images = np.moveaxis(image, AXES[axis], 0)
    labels = np.moveaxis(label, AXES[axis], 0)
    rows, columns = labels.shape[1:]
    above, left = max(5 - rows, 0) // 2, max(6 - columns, 0) // 2
    matches = []
    for row in range(max(rows - 5, 0) + 1):
        for column in range(max(columns - 6, 0) + 1):
            expected = np.zeros_like(patch)
            truth = np.zeros_like(target)
            for y in range(min(5, rows)):
                for x in range(min(6, columns)):
                    truth[above + y, left + x] = labels[index, row + y, column + x]
                    for offset in range(-neighbours, neighbours + 1):
                        if 0 <= index + offset < len(images):
                            first = (offset + neighbours) * 3
                            expected[above + y, left + x, first : first + 3] = images[
                                index + offset, row + y, column + x
                            ]
            matches.append((expected == patch).all() and (truth == target).all())
    assert any(matches)


def test_a_slice_is_of_known_size_and_stateless():
    record, _, _ = record_and_volumes(random_case((9, 10, 11), channels=3))
    chosen = PipelineSettings(patch_size=(4, 6), slices=SliceSettings(neighbours=1, axis="coronal"))
    draw = tf.function(lambda seed: draw_slice(record, chosen, seed))
    image, label = draw.get_concrete_function(tf.TensorSpec([2], tf.int32)).outputs
    assert image.shape == (4, 6, 9) and image.dtype == tf.float16
    assert label.shape == (4, 6) and label.dtype == tf.uint8
    first, again, other = (draw(tf.constant([i, 0]))[0].numpy() for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
