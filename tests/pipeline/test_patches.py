import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config.experiment import PipelineSettings
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.cut import cut
from kerasseg.pipeline.sampling import draw_patch, padding, sample_start
from tests.pipeline.stored import dense_crop, record_and_volumes
from tests.records.random_case import random_case

PATCH = (4, 5, 6)


def voxels(*points: tuple[int, int, int]) -> tf.Tensor:
    return tf.constant(points or np.zeros((0, 3)), tf.int32)


def starts(shape, foreground, share, count=300, **chosen):
    settings = PipelineSettings(patch_size=PATCH, tumour_share=share, **chosen)

    @tf.function
    def one(seed):
        return sample_start(tf.constant(shape), foreground, settings, seed)

    return np.stack([one(tf.constant([i, 9])).numpy() for i in range(count)])


def test_tumour_patches_are_centred_and_pushed_inside():
    foreground = [voxels((0, 0, 0)), voxels(), voxels((10, 9, 9))]
    found = starts((11, 12, 13), foreground, 1.0)
    kinds = {tuple(s) for s in found}
    assert kinds == {(0, 0, 0), (7, 7, 6)}, "clipped to the corner; centre minus half the patch"
    share = (found == 0).all(axis=1).mean()
    assert 0.4 < share < 0.6, "classes that are present are drawn evenly"


def test_the_share_is_kept_and_the_rest_lies_anywhere():
    found = starts((11, 12, 13), [voxels((5, 5, 5))] * 3, 0.6)
    centred = (found == (3, 3, 2)).all(axis=1)
    assert 0.5 < centred.mean() < 0.7
    others = found[~centred]
    for axis, last in enumerate((7, 7, 7)):
        assert set(others[:, axis]) == set(range(last + 1)), "every place, both edges included"


@pytest.mark.parametrize(
    ("shares", "present", "expected"),
    [
        ({"NCR": 0.2, "ED": 0.1, "ET": 0.5}, "NCR ED ET", {"NCR": 0.2, "ED": 0.1, "ET": 0.5}),
        ({"ET": 0.6}, "NCR ED ET", {"ET": 0.6}),
        ({"NCR": 0.4, "ET": 0.4}, "ED ET", {"ED": 0.2, "ET": 0.6}),
        ({"tumour": 0.7}, "NCR", {"NCR": 0.7}),
        ({"ED": 0.9}, "", {}),
    ],
)
def test_each_class_has_its_share_or_gives_it_to_those_that_are_present(shares, present, expected):
    places = {"NCR": (2, 3, 3), "ED": (5, 5, 5), "ET": (8, 7, 9)}
    foreground = [voxels(*([p] if name in present else [])) for name, p in places.items()]
    # A class that a volume lacks is replaced by one of those present, each as likely.
    found = starts((11, 12, 13), foreground, 0.6, count=600, class_shares=shares)
    for name, place in places.items():
        share = (found == np.subtract(place, (2, 2, 3))).all(axis=1).mean()
        assert abs(share - expected.get(name, 0.0)) < 0.07, name


def test_without_tumour_every_place_is_equally_likely():
    found = starts((11, 12, 13), [voxels()] * 3, 1.0)
    assert abs(found.mean() - 3.5) < 0.3


def test_the_same_seed_gives_the_same_place():
    draw = [starts((30, 31, 32), [voxels((5, 6, 7))] * 3, 0.5, count=20) for _ in range(2)]
    np.testing.assert_array_equal(*draw)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 19)),
    st.sampled_from([1, 4]),
    st.sampled_from([0.1, 0.7, 1.0]),
    st.integers(0, 1000),
    st.sampled_from([0.0, 1.0]),
)
def test_a_patch_is_the_dense_crop_and_small_volumes_are_padded(
    shape, channels, brain, seed, share
):
    case = random_case(shape, channels=channels, brain=brain, seed=seed)
    record, image, label = record_and_volumes(case)
    shape = label.shape  # of the brain box
    chosen = PipelineSettings(patch_size=PATCH, tumour_share=share)
    start = sample_start(
        record.voxels.shape, record.foreground, chosen, tf.constant([seed, 0])
    ).numpy()
    inside = tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))
    size = label[inside].shape
    assert size == tuple(min(p, n) for p, n in zip(PATCH, shape, strict=True)), "never outside"
    before = [(p - n) // 2 for p, n in zip(PATCH, size, strict=True)]
    box = tuple(slice(b, b + n) for b, n in zip(before, size, strict=True))
    first = start - padding(record.voxels.shape, PATCH)
    found = cut(record.voxels, first, Patch.of(chosen, channels))
    for patch, volume in zip(found, (image, label), strict=True):
        expected = np.zeros((*PATCH, *volume.shape[3:]), volume.dtype)
        expected[box] = volume[inside]
        np.testing.assert_array_equal(patch, expected)


def test_a_drawn_patch_is_float16_of_known_size_around_the_tumour():
    case = random_case((14, 15, 16), channels=3, tumour=0)
    case.label[7, 8, 9] = 2
    record, image, label = record_and_volumes(case)
    chosen = PipelineSettings(patch_size=PATCH, tumour_share=1.0)
    draw = tf.function(lambda seed: draw_patch(record, chosen, seed))
    patch, target = draw(tf.constant([1, 2]))
    assert patch.dtype == tf.float16 and target.dtype == tf.uint8
    image_spec, label_spec = draw.get_concrete_function(tf.TensorSpec([2], tf.int32)).outputs
    assert image_spec.shape == (*PATCH, 3) and label_spec.shape == PATCH
    place = np.argwhere(label)[0] - (2, 2, 3)
    np.testing.assert_array_equal(patch, dense_crop(image, list(place), list(PATCH)))
    np.testing.assert_array_equal(target, dense_crop(label, list(place), list(PATCH)))
