import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasseg.records.normalise import (
    LEAST,
    PERCENTILES,
    brain_mask,
    normalise,
    to_unit,
    z_score,
)
from kerasseg.records.schema import decode, encode
from tests.records.random_case import random_case


@pytest.mark.parametrize("shape", [(4, 5, 6), (120,)])
def test_z_score_against_the_formula(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(500, 90, (*shape, 3)).astype(np.float32)
    image[rng.random(shape) < 0.4] = 0
    before = image.copy()
    scored, mean, std = z_score(image)
    np.testing.assert_array_equal(image, before)
    for channel in range(3):
        values = image[..., channel]
        inside = values[values != 0].astype(np.float64)
        expected = np.where(values != 0, (values - inside.mean()) / (inside.std() + 1e-8), 0)
        np.testing.assert_allclose(scored[..., channel], expected, atol=1e-5)
        assert (scored[..., channel][values == 0] == 0).all()
        assert np.isclose(mean[channel], inside.mean()) and np.isclose(std[channel], inside.std())


def test_mean_and_deviation_are_summed_in_float64():
    image = np.random.default_rng(0).normal(1000, 0.1, (300_000, 1)).astype(np.float32)
    _, mean, std = z_score(image)
    exact = image.astype(np.float64)
    np.testing.assert_allclose([*mean, *std], [exact.mean(), exact.std()], rtol=1e-12)


def test_constant_and_empty_channels_are_finite():
    image = np.zeros((3, 4, 5, 2), np.float32)
    image[..., 0] = 7
    scored, _, std = z_score(image)
    assert np.isfinite(scored).all() and not scored.any() and std == [0.0, 0.0]


@given(hnp.arrays(bool, (4, 5, 6, 2)), hnp.arrays(bool, (4, 5, 6)), st.booleans())
def test_box_and_mask_hold_every_signal_and_are_tight(signal, labelled, known):
    image = signal.astype(np.float32)
    label = labelled.astype(np.uint8)
    inside = image.any(axis=-1) | (label > 0)
    hint = brain_mask(image)[0] if known else None
    box, mask = brain_mask(image, label, hint)
    np.testing.assert_array_equal(mask, inside[box])
    assert mask.sum() == inside.sum()
    for axis in range(3):
        if inside.any():
            faces = np.moveaxis(mask, axis, 0)
            assert faces[0].any() and faces[-1].any()


def test_a_known_box_saves_looking_outside_it_but_for_labels():
    image = np.zeros((6, 7, 8, 1), np.float32)
    label = np.zeros((6, 7, 8), np.uint8)
    image[2, 3, 4], image[5, 6, 7] = 1, 1
    label[0, 1, 1] = 2
    known = (slice(1, 4), slice(1, 5), slice(1, 6))
    assert brain_mask(image, None, known)[0] == (slice(2, 3), slice(3, 4), slice(4, 5))
    box, mask = brain_mask(image, label, known)
    assert box == (slice(0, 3), slice(1, 4), slice(1, 5)) and mask.sum() == 2


def test_a_raw_scan_that_is_not_skull_stripped_is_its_record():
    """Whatever is 0 gets the darkest value, which no other voxel has or is below."""
    case = random_case((4, 5, 6), seed=2)
    case.image[0], case.label[0] = 0, 0  # would be cropped
    stored = decode(encode(case, 5, skull_stripped=False).payload)
    box, _ = brain_mask(case.image)
    found = normalise(case.image, box, skull_stripped=False)
    np.testing.assert_array_equal(stored.case.image, found)
    darkest = found.min(axis=(0, 1, 2))
    np.testing.assert_array_equal(stored.background, darkest)
    np.testing.assert_array_equal(found == darkest, case.image == 0)


def test_percentiles_become_0_and_1_and_air_stays_0():
    image = np.zeros((4, 10, 30, 2), np.float32)
    image[:, 2:, 5:] = np.random.default_rng(0).normal(50, 20, size=(4, 8, 25, 2))
    image[..., 1] = image[..., 0] * 1024
    unit = to_unit(image)
    np.testing.assert_allclose(unit[..., 0], unit[..., 1], atol=1e-6)
    assert ((unit == 0) == (image == 0)).all() and unit.max() == 1
    assert unit[image != 0].min() == LEAST
    known = image[..., 0][image[..., 0] != 0]
    low, high = np.percentile(known, PERCENTILES)
    middle = (known > low) & (known < high)
    expected = (known[middle] - low) / (high - low)
    np.testing.assert_allclose(unit[..., 0][image[..., 0] != 0][middle], expected, atol=1e-3)
    assert not to_unit(np.zeros((2, 2, 2, 1))).any()
    box = (slice(None), slice(2, None), slice(5, None))
    for stripped in (True, False):
        whole = normalise(image, box, skull_stripped=stripped, normalisation="percentiles")
        np.testing.assert_array_equal(whole, unit.astype(np.float16).astype(np.float32))
