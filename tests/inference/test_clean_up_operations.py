"""Each operation against a slow search voxel by voxel, or masks drawn by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg import anatomy
from kerasseg.inference.postprocessing import (
    enhancing_to_necrosis,
    fill_holes,
    keep_largest,
    remove_small,
)
from kerasseg.targets import label_to_masks, masks_to_label

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


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 9))
def test_small_components_go(mask, voxels):
    kept = [c for c in components(mask) if len(c) >= voxels]
    expected = drawn(itertools.chain.from_iterable(kept), mask.shape)
    # 0.7 x 0.8 x 0.9 mm: the limit is met exactly, whatever the rounding.
    found = remove_small(mask, voxels * 0.7 * 0.8 * 0.9, (0.7, 0.8, 0.9))
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_the_largest_stays(mask):
    expected = drawn(max(components(mask), key=len, default=()), mask.shape)
    np.testing.assert_array_equal(keep_largest(mask), expected)


@settings(max_examples=60, deadline=None)
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
    np.testing.assert_array_equal(fill_holes(mask), ~outside[inner])


def test_a_ring_in_a_picture_is_filled():
    mask = np.zeros((1, 6, 7), bool)
    mask[0, 1:5, 1:6] = True
    ring = mask.copy()
    ring[0, 2:4, 2:5] = False
    np.testing.assert_array_equal(fill_holes(ring), mask)


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
