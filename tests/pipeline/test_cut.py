"""Patches cut out of records: mirrored and warped as if dense volumes in air were."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from kerasseg.config.augment import Flip, Spatial
from kerasseg.pipeline.augment.patch import AXES, Patch
from kerasseg.pipeline.augment.spatial import Warp, draw_spatial
from kerasseg.pipeline.cut import _WARP, cut, cut_straight, cut_warped
from tests.pipeline.augment.test_spatial import STRONG, brute_force_sources
from tests.pipeline.stored import dense_crop, record_and_volumes
from tests.records.random_case import random_case

PATCHES = [
    Patch((4, 6, 8), 2),
    Patch((20, 25, 9), 2),
    Patch((11, 19), 2, 1, 0),
    Patch((11, 6), 2, 3, 1),
    Patch((5, 19), 2, 5, 2),
]


@pytest.fixture(scope="module")
def stored():
    record, image, label = record_and_volumes(random_case((12, 15, 17), seed=3))
    return record.voxels, image, label


def in_volume(patch, places, first):
    """Coordinates (n, *size) within a patch -> (3, *size, slices) in the volume."""
    full = np.zeros((3, *patch.size, patch.slices))
    for own, place in zip(patch.inside, places, strict=True):
        full[own] = (place + first[own])[..., np.newaxis]
    if patch.across is not None:
        full[patch.across] = first[patch.across] + np.arange(patch.slices)
    return full


# Each patch is compiled anew: a volume, and slices along two of three axes.
@pytest.mark.parametrize(
    "patch",
    [
        # A volume, and three slices: what holds for them holds for one.
        pytest.param(patch, marks=() if i in (1, 3) else pytest.mark.all_only)
        for i, patch in enumerate(PATCHES)
    ],
)
@pytest.mark.parametrize("elastic", [pytest.param(0.0, marks=pytest.mark.all_only), 0.05])
def test_a_warped_patch_is_scipys(patch, elastic, stored):
    voxels, image, label = stored
    settings = Spatial(**STRONG, elastic=elastic, p_elastic=1.0)
    first = np.array([3, 4, -2], np.int32)
    for index in range(3):
        warp = draw_spatial(tf.constant([1, index]), patch.size, settings)
        found, nearest = cut_warped(
            voxels, tf.constant(first), warp, patch, "nearest", bent=elastic > 0
        )
        _, linear = cut_warped(voxels, tf.constant(first), warp, patch, "linear", bent=elastic > 0)
        places = np.moveaxis(brute_force_sources(warp, patch.size), -1, 0)
        places = in_volume(patch, places, first)
        expected = [
            ndimage.map_coordinates(image[..., c], places, order=1, mode="grid-constant")
            for c in range(2)
        ]
        expected = np.stack(expected, -1).reshape(*patch.size, -1)
        np.testing.assert_allclose(found, expected, atol=4e-3)
        middle = places[..., patch.slices // 2]
        rounded = np.floor(middle + 0.5).astype(int)
        inside = np.all([(r >= 0) & (r < n) for r, n in zip(rounded, label.shape, strict=True)], 0)
        at = label[tuple(np.where(inside, rounded, 0))] * inside
        assert np.mean(nearest.numpy() == at) > 0.995, "rounding may differ at a half"
        shares = [
            ndimage.map_coordinates(
                (label == k).astype(float), middle, order=1, mode="grid-constant", cval=k == 0
            )
            for k in range(4)
        ]
        assert np.mean(linear.numpy() == np.argmax(shares, 0)) > 0.99
        assert found.dtype == tf.float16 and nearest.dtype == linear.dtype == tf.uint8


@pytest.mark.parametrize("patch", PATCHES)
def test_a_straight_patch_is_the_dense_crop_mirrored(patch, stored):
    voxels, image, label = stored
    first = [-3, 2, 5]
    extent = np.ones(3, int)
    extent[list(patch.inside)] = patch.size
    if patch.across is not None:
        extent[patch.across] = patch.slices
    order = [*patch.inside, *([] if patch.across is None else [patch.across])]
    dense = dense_crop(image, first, extent.tolist()).transpose(*order, 3)
    ids = dense_crop(label, first, extent.tolist()).transpose(*order)
    ids = ids if patch.across is None else ids[..., patch.slices // 2]
    rank = len(patch.size)
    for flips in np.ndindex(*[2] * rank):
        found, found_ids = cut_straight(voxels, tf.constant(first), tf.constant(flips) > 0, patch)
        axes = [axis for axis in range(rank) if flips[axis]]
        expected = np.flip(dense, axes).reshape(*patch.size, -1)
        np.testing.assert_array_equal(found, expected.astype(np.float16))
        np.testing.assert_array_equal(found_ids, np.flip(ids, axes))


def test_flips_happen_as_often_as_asked_and_only_along_their_axes(stored):
    voxels, *_ = stored
    patch, first = Patch((4, 5, 6), 2), tf.constant([2, 3, 4])
    kinds = {
        cut_straight(voxels, first, tf.constant(flips) > 0, patch)[0].numpy().tobytes(): flips
        for flips in np.ndindex(2, 2, 2)
    }
    transforms = [Flip(axes=("width",), p=0.3), Flip(axes=("depth",), p=1.0)]
    draw = tf.function(lambda seed: cut(voxels, first, patch, transforms, seed)[0])
    drawn = Counter(kinds[draw(tf.constant([7, i])).numpy().tobytes()] for i in range(300))
    assert set(drawn) == {(1, 0, 0), (1, 0, 1)}
    assert abs(drawn[(1, 0, 1)] / 300 - 0.3) < 0.1


@pytest.mark.parametrize("bent", [False, True])
def test_a_warp_that_mirrors_is_the_mirrored_warp(bent, stored):
    """What `cut` does to the matrix: of a straight warp, the same patch from behind."""
    voxels, *_ = stored
    patch, first = Patch((8, 7, 6), 2), tf.constant([1, 2, 3])
    warp = draw_spatial(tf.constant([0, 5]), patch.size, Spatial(**STRONG, elastic=0.0))
    mirrored = warp._replace(matrix=warp.matrix * [1.0, -1.0, -1.0])
    plain, ids = cut_warped(voxels, first, warp, patch, "nearest", bent=bent)
    found, found_ids = cut_warped(voxels, first, mirrored, patch, "nearest", bent=bent)
    np.testing.assert_allclose(found, np.flip(plain, (1, 2)), atol=4e-3)
    assert np.mean(found_ids.numpy() == np.flip(ids, (1, 2))) > 0.99


@pytest.mark.parametrize("patch", [PATCHES[0], PATCHES[3]])
def test_a_patch_is_turned_in_the_millimetres_of_its_record(patch, stored):
    voxels, *_ = stored
    spacing = np.array([3.0, 2.0, 1.0])[list(patch.inside)]  # of `random_case`
    first, seed = tf.constant([1, 2, 3]), tf.constant([4, 5])
    settings = Spatial(rotation=60.0, p_rotation=1.0, p_scale=0.0)
    found = cut(voxels, first, patch, [settings], seed)
    own = tf.random.fold_in(seed, _WARP)
    warp = draw_spatial(own, patch.size, settings, tf.constant(spacing, tf.float32))
    expected = cut_warped(voxels, first, warp, patch, "nearest", bent=False)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    in_mm = warp.matrix.numpy() * spacing[:, np.newaxis] / spacing
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(len(spacing)), atol=1e-5)


def test_outside_of_a_picture_is_its_darkest_value():
    """A scan that is not skull-stripped: what is 0, padded or turned in has its darkest value."""
    case = random_case((5, 9, 11), seed=4)
    case.image[case.image != 0] += 1000.0  # the darkest tissue is far from 0, and 0 is darker
    record, image, label = record_and_volumes(case, skull_stripped=False)
    assert image.shape == case.image.shape, "nothing is cropped: what is 0 belongs to the picture"
    darkest = image.min(axis=(0, 1, 2))
    assert (darkest < -2).all() and (image[case.image == 0] < -2).all()
    tissue = image[case.image != 0]
    assert tissue.mean() == pytest.approx(0, abs=0.01)
    assert tissue.std() == pytest.approx(1, abs=0.01)
    patch, first = Patch((8, 16, 16), 2), tf.constant([-2, -4, -3])
    straight, ids = cut(record.voxels, first, patch)
    np.testing.assert_array_equal(straight[2:7, 4:13, 3:14], image)
    np.testing.assert_array_equal(ids[2:7, 4:13, 3:14], label)
    beside = np.ones(patch.size, bool)
    beside[2:7, 4:13, 3:14] = False
    np.testing.assert_array_equal(straight.numpy()[beside], [darkest] * beside.sum())
    settings = Spatial(rotation=45.0, p_rotation=1.0, p_scale=0.0)
    turned, _ = cut(record.voxels, first, patch, [settings], tf.constant([1, 1]))
    np.testing.assert_array_equal(turned[0, 0, 0], darkest)
    assert turned.numpy().min() >= darkest.min() - 0.01


# The axes are told apart by the straight patches above.
@pytest.mark.parametrize(
    "axis",
    [pytest.param(a, marks=() if a == "coronal" else pytest.mark.all_only) for a in AXES],
)
def test_what_is_not_drawn_or_has_no_strength_is_cut_as_it_is(axis, stored):
    voxels, *_ = stored
    patch, first = Patch((8, 9), 2, 3, AXES[axis]), tf.constant([1, 2, 3])
    plain = cut(voxels, first, patch)
    never = Spatial(p_rotation=0.0, p_scale=0.0, p_elastic=0.0, elastic=0.1)
    still = Spatial(rotation=0.0, scale=(1.0, 1.0), p_rotation=1.0, p_scale=1.0)
    for settings in (never, still):
        for found, expected in zip(
            cut(voxels, first, patch, [settings], tf.constant([0, 0])), plain, strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    identity = Warp(tf.eye(2), tf.zeros(2), tf.zeros([6, 6, 2]))
    for bent in (False, True):
        found = cut_warped(voxels, first, identity, patch, "linear", bent=bent)
        for a, b in zip(found, plain, strict=True):
            np.testing.assert_array_equal(a, b)


def test_in_a_data_set_a_patch_is_a_function_of_its_seed(stored):
    voxels, *_ = stored
    patch, first = Patch((8, 7, 6), 2), tf.constant([1, 2, 3])
    transforms = [Flip(), Spatial(p_rotation=0.5, p_scale=0.5, elastic=0.02, p_elastic=0.5)]
    seeds = tf.constant([[3, i] for i in range(8)])
    data = tf.data.Dataset.from_tensor_slices(seeds)
    mapped = list(data.map(lambda s: cut(voxels, first, patch, transforms, s), 3))
    for seed, (image, label) in zip(seeds, mapped, strict=True):
        again, same = cut(voxels, first, patch, transforms, seed)
        np.testing.assert_allclose(image, again, atol=2e-3)
        assert np.mean(label.numpy() == same) > 0.99
    assert len({image.numpy().tobytes() for image, _ in mapped}) == 8
