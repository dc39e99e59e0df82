"""Each operation of the clean-up against a slow search voxel by voxel, and their order."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.postprocessing import (
    ARRAYS,
    enhancing_to_necrosis,
    keep_largest,
    postprocess_masks,
    postprocessed_masks,
    remove_small,
)
from kerasseg.targets import label_to_masks, masks_to_label

ONE = (1.0, 1.0, 1.0)
NCR, ED, ET = anatomy.NCR, anatomy.ED, anatomy.ET
CORNERS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
FACES = [step for step in CORNERS if sum(map(abs, step)) == 1]


def reached(mask, start, steps):
    """Every true voxel that a walk from `start` comes to, by a stack."""
    seen, stack = {start}, [start]
    while stack:
        place = stack.pop()
        for step in steps:
            other = tuple(p + s for p, s in zip(place, step, strict=True))
            inside = all(0 <= o < n for o, n in zip(other, mask.shape, strict=True))
            if inside and other not in seen and mask[other]:
                seen.add(other)
                stack.append(other)
    return seen


def components(mask):
    """Sets of voxels, in the order of their first ones."""
    left, found = dict.fromkeys(zip(*map(list, np.nonzero(mask)), strict=True)), []
    while left:
        found.append(reached(mask, next(iter(left)), CORNERS))
        for place in found[-1]:
            del left[place]
    return found


def drawn(places, shape):
    mask = np.zeros(shape, bool)
    for place in places:
        mask[place] = True
    return mask


masks = st.tuples(
    st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.8])
).map(lambda t: np.random.default_rng(t[1]).random(t[0]) < t[2])


@given(masks, st.integers(1, 9))
def test_small_components_are_removed(mask, voxels):
    kept = [c for c in components(mask) if len(c) >= voxels]
    expected = drawn(itertools.chain.from_iterable(kept), mask.shape)
    # 0.7 x 0.8 x 0.9 mm: the limit is met exactly, whatever the rounding.
    found = remove_small(mask, voxels * 0.7 * 0.8 * 0.9, (0.7, 0.8, 0.9))
    np.testing.assert_array_equal(found, expected)


@given(masks)
def test_only_the_largest_component_stays(mask):
    expected = drawn(max(components(mask), key=len, default=()), mask.shape)
    np.testing.assert_array_equal(keep_largest(mask), expected)


@given(masks)
def test_holes_are_what_the_outside_does_not_reach(mask):
    thick = [axis for axis, n in enumerate(mask.shape) if n > 1]
    wide = np.pad(~mask, [(1, 1) if axis in thick else (0, 0) for axis in range(3)])
    wide_edges = np.zeros(wide.shape, bool)
    for axis in thick:
        for edge in (0, -1):
            wide_edges[(slice(None),) * axis + (edge,)] = True
    wide |= wide_edges
    if thick:
        ends = [(0, 0, 0), tuple(n - 1 for n in wide.shape)]  # two of a line, joined in all else
        outside = drawn(set().union(*(reached(wide, end, FACES) for end in ends)), wide.shape)
    else:
        outside = wide
    inner = tuple(slice(1, -1) if axis in thick else slice(None) for axis in range(3))
    np.testing.assert_array_equal(ARRAYS.fill_holes(mask), ~outside[inner])


def test_a_ring_in_a_picture_is_filled():
    mask = np.zeros((1, 6, 7), bool)
    mask[0, 1:5, 1:6] = True
    ring = mask.copy()
    ring[0, 2:4, 2:5] = False
    np.testing.assert_array_equal(ARRAYS.fill_holes(ring), mask)


@pytest.mark.parametrize("target", ["labels", "subregions", "regions"])
@pytest.mark.parametrize(("minimum", "gone"), [(24.0, False), (24.1, True)])
def test_a_little_enhancing_tumour_is_necrosis(target, minimum, gone):
    """Three voxels of 8 mm^3."""
    label = np.random.default_rng(0).choice([0, 1, 2], size=(4, 5, 6)).astype(np.uint8)
    label[2, 3, 1:4] = anatomy.ET
    masks = label_to_masks(label, target)
    parts = [masks[..., index] for index in range(masks.shape[-1])]
    found = np.stack(enhancing_to_necrosis(parts, target, minimum, (2.0, 2.0, 2.0)), axis=-1)
    expected = np.where(label == anatomy.ET, anatomy.NCR, label) if gone else label
    np.testing.assert_array_equal(masks_to_label(found, target), expected)
    np.testing.assert_array_equal(found, label_to_masks(expected.astype(np.uint8), target))
    np.testing.assert_array_equal(masks, label_to_masks(label, target), "the input is as it was")


def tumour():
    """A large tumour of all three, whose edema has a hole, and a small one of two."""
    label = np.zeros((5, 14, 16), np.uint8)
    label[1:4, 1:8, 1:8] = ED
    label[2, 2:5, 2:5] = NCR
    label[2, 3, 3] = ET
    label[2, 6, 6] = 0
    label[1:3, 10:12, 11:14] = ED
    label[2, 10, 12] = ET
    return label


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_settings_that_are_off_change_nothing(target):
    masks = label_to_masks(tumour(), target)
    np.testing.assert_array_equal(
        postprocess_masks(masks, target, ONE, PostprocessingSettings()), masks
    )


@pytest.mark.parametrize("how", [{"minimum_volume": {"WT": 12.5}}, {"keep_largest": ["WT"]}])
def test_what_is_removed_from_a_region_is_removed_from_those_inside(how):
    label = tumour()
    masks = label_to_masks(label, "regions")
    before = masks.copy()
    found = postprocess_masks(masks, "regions", ONE, PostprocessingSettings(**how))
    label[:, 10:] = 0
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))
    np.testing.assert_array_equal(masks, before, "the input is as it was")


def test_a_component_just_large_enough_stays():
    masks = label_to_masks(tumour(), "regions")
    settings = PostprocessingSettings(minimum_volume={"WT": 12})
    np.testing.assert_array_equal(postprocess_masks(masks, "regions", ONE, settings), masks)
    half = (1.0, 0.5, 1.0)
    assert not postprocess_masks(masks, "regions", half, settings)[:, 10:].any()


@pytest.mark.parametrize("target", ["labels", "subregions", "binary"])
def test_sub_regions_are_cleaned_one_by_one(target):
    label = tumour()
    channels = list(anatomy.tumour_channels(target))
    settings = PostprocessingSettings(keep_largest=channels, minimum_volume={channels[0]: 1})
    found = postprocess_masks(label_to_masks(label, target), target, ONE, settings)
    if target == "binary":
        label[:, 10:] = 0
        np.testing.assert_array_equal(found, label_to_masks(label, "binary"))
        return
    # Of two single voxels of ET the first stays; nothing takes the other's place.
    label[1:3, 10:12, 11:14] = 0
    np.testing.assert_array_equal(masks_to_label(found, target), label)
    np.testing.assert_array_equal(found, label_to_masks(label, target))


@pytest.mark.parametrize("target", ["labels", "subregions", "regions"])
def test_holes_are_filled_and_what_lies_in_them_stays(target):
    label = tumour()
    channel = "WT" if target == "regions" else "ED"
    settings = PostprocessingSettings(fill_holes=[channel])
    found = postprocess_masks(label_to_masks(label, target), target, ONE, settings)
    label[2, 6, 6] = ED
    np.testing.assert_array_equal(found, label_to_masks(label, target))


def test_what_is_added_to_a_region_is_added_around_it():
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:4, 1:5, 1:6] = NCR
    label[2, 2:4, 2:4] = 0
    settings = PostprocessingSettings(fill_holes=["TC"])
    found = postprocess_masks(label_to_masks(label, "regions"), "regions", ONE, settings)
    label[2, 2:4, 2:4] = NCR
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))


def test_enhancing_tumour_is_counted_last():
    """Two voxels of it are enough, but the smaller tumour has gone before they are counted."""
    settings = {"minimum_enhancing": 2}
    masks = label_to_masks(tumour(), "regions")
    kept = postprocess_masks(masks, "regions", ONE, PostprocessingSettings(**settings))
    np.testing.assert_array_equal(kept, masks)
    settings |= {"keep_largest": ["WT"]}
    found = postprocess_masks(masks, "regions", ONE, PostprocessingSettings(**settings))
    label = tumour()
    label[:, 10:] = 0
    label[label == ET] = NCR
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))


def test_each_channel_has_its_own_threshold():
    probabilities = np.random.default_rng(0).random((3, 4, 5, 3)).astype(np.float32)
    settings = PostprocessingSettings(thresholds={"TC": 0.25, "ET": 0.75})
    found = postprocessed_masks(probabilities, "regions", ONE, 0.4, settings)
    for channel, threshold in enumerate((0.4, 0.25, 0.75)):
        np.testing.assert_array_equal(found[..., channel], probabilities[..., channel] >= threshold)
