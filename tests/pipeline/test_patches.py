import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg.pipeline.patches import cut_patch, sample_start

PATCH = (4, 5, 6)


def voxels(*points: tuple[int, int, int]) -> tf.Tensor:
    return tf.constant(points or np.zeros((0, 3)), tf.int32)


def starts(shape, foreground, share, count=300):
    @tf.function
    def one(seed):
        return sample_start(tf.constant(shape), foreground, PATCH, share, seed)

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


def test_without_tumour_every_place_is_equally_likely():
    found = starts((11, 12, 13), [voxels()] * 3, 1.0)
    assert abs(found.mean() - 3.5) < 0.3


def test_the_same_seed_gives_the_same_place():
    draw = [starts((30, 31, 32), [voxels((5, 6, 7))] * 3, 0.5, count=20) for _ in range(2)]
    np.testing.assert_array_equal(*draw)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 1000), st.sampled_from([0.0, 1.0]))
def test_a_patch_never_leaves_the_volume_and_small_volumes_are_padded(shape, seed, share):
    volume = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    centre = voxels(tuple(n - 1 for n in shape))
    start = sample_start(tf.constant(shape), [centre] * 3, PATCH, share, tf.constant([seed, 0]))
    patch = cut_patch(tf.constant(volume), start, PATCH).numpy()
    assert patch.shape == PATCH
    inside = volume[tuple(slice(s, s + p) for s, p in zip(start.numpy(), PATCH, strict=True))]
    before = [(p - n) // 2 for p, n in zip(PATCH, inside.shape, strict=True)]
    box = tuple(slice(b, b + n) for b, n in zip(before, inside.shape, strict=True))
    expected = np.zeros(PATCH, np.int32)
    expected[box] = inside
    np.testing.assert_array_equal(patch, expected)
    assert inside.shape == tuple(min(p, n) for p, n in zip(PATCH, shape, strict=True))


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_stay_together(channels):
    volume = np.random.default_rng(0).normal(size=(7, 3, 9, channels)).astype(np.float32)
    patch = cut_patch(tf.constant(volume), tf.constant([2, 0, 1]), PATCH).numpy()
    np.testing.assert_array_equal(patch[:, 1:4], volume[2:6, :, 1:7])
