"""Against a slow reading of BraTS 2023's rules, lesion by lesion in the whole volume."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from kerasseg.metrics.lesions import Components, LesionSettings, lesion_wise
from kerasseg.metrics.surface import surfel_areas
from tests.metrics.masks import pairs

TWENTY_SIX = np.ones((3, 3, 3))
EIGHTEEN = ndimage.generate_binary_structure(3, 2)


def slow_surfels(mask, spacing):
    padded = np.pad(mask, 1)
    points, areas = [], []
    for corner in np.ndindex(*(side - 1 for side in padded.shape)):
        cube = padded[tuple(slice(c, c + 2) for c in corner)].ravel()
        if 0 < cube.sum() < 8:
            points.append(corner)
            areas.append(surfel_areas(spacing)[int(cube @ 2 ** np.arange(8))])
    return np.array(points) * spacing, np.array(areas)


def slow_hd95(one, other, spacing):
    (points, areas), (others, other_areas) = (slow_surfels(mask, spacing) for mask in (one, other))
    between = cdist(points, others)
    highest = 0.0
    for distances, weights in ((between.min(1), areas), (between.min(0), other_areas)):
        reached = 0.0
        for distance, weight in sorted(zip(distances, weights, strict=True)):
            reached += weight
            if reached / weights.sum() >= 0.95 - 1e-12:
                highest = max(highest, distance)
                break
    return highest


def slow_lesion_wise(truth, prediction, spacing, settings):
    dilated = ndimage.binary_dilation(truth, EIGHTEEN, iterations=settings.dilation)
    places, number = ndimage.label(dilated, TWENTY_SIX)
    components, predicted = ndimage.label(prediction, TWENTY_SIX)
    dices, distances, found, missed, belonging = [], [], 0, 0, set()
    for i in range(1, number + 1):
        lesion = truth & (places == i)
        reach = ndimage.binary_dilation(lesion, EIGHTEEN, iterations=settings.dilation)
        own = set(np.unique(components[reach])) - {0}
        belonging |= own
        if lesion.sum() * np.prod(spacing) <= settings.smallest:
            continue
        matched = np.isin(components, list(own))
        found, missed = found + bool(own), missed + (not own)
        dices.append(2 * (lesion & matched).sum() / (lesion.sum() + matched.sum()))
        distances.append(slow_hd95(lesion, matched, spacing) if own else settings.penalty)
    invented = predicted - len(belonging)
    total = len(dices) + invented
    if not total:
        return 1.0, 0.0, 0, 0, 0
    hd95 = (sum(distances) + settings.penalty * invented) / total
    return sum(dices) / total, hd95, found, invented, missed


@pytest.mark.parametrize(
    "settings", [LesionSettings(dilation=1, smallest=2.0), LesionSettings(3, 50.0, 20.0)]
)
def test_against_the_slow_reading(settings):
    several = 0
    for truth, prediction, spacing in pairs(70, seed=1):
        got = lesion_wise(truth, Components.of_mask(prediction), spacing, settings)
        expected = slow_lesion_wise(truth, prediction, spacing, settings)
        assert (got.dice, got.hd95, got.found, got.invented, got.missed) == pytest.approx(expected)
        several += got.found + got.missed > 1
    assert several or settings.dilation == 3


def brats_like():
    """A large lesion with a near crumb, a small far one, and a prediction with an invented one."""
    truth, prediction = np.zeros((2, 24, 30, 36), bool)
    truth[4:10, 4:10, 4:10] = True
    truth[13, 6, 6] = True  # three voxels of air: joined by a dilation of 3, not of 1
    truth[20, 26, 32] = True
    prediction[4:10, 4:10, 5:11] = True
    prediction[2:4, 25:27, 3:5] = True
    return truth, prediction


def test_near_pieces_are_one_lesion_small_ones_are_left_out():
    truth, prediction = brats_like()
    got = lesion_wise(truth, Components.of_mask(prediction), (1.0, 1.0, 1.0))
    assert (got.found, got.invented, got.missed) == (1, 1, 0)
    assert got.dice == pytest.approx(2 * 180 / (217 + 216) / 2)
    assert got.hd95 == pytest.approx((got.lesions[0].hd95 + 374) / 2)
    assert [lesion.volume for lesion in got.lesions] == [217.0, 1.0]
    apart = lesion_wise(
        truth, Components.of_mask(prediction), (1.0, 1.0, 1.0), LesionSettings.of_challenge("MET")
    )
    assert [lesion.volume for lesion in apart.lesions] == [216.0, 1.0, 1.0]
    assert apart.found == 1 and apart.missed == 0
    # 2 mm^3 must be exceeded, not reached.
    wider = lesion_wise(
        truth, Components.of_mask(prediction), (2.0, 1.0, 1.0), LesionSettings.of_challenge("MET")
    )
    assert wider.missed == 0
    wider = lesion_wise(
        truth, Components.of_mask(prediction), (2.1, 1.0, 1.0), LesionSettings.of_challenge("MET")
    )
    assert wider.missed == 2


def test_dilation_reaches_over_edges_and_not_over_corners():
    truth, beside, diagonal = np.zeros((3, 5, 6, 7), bool)
    truth[2, 2, 2] = beside[2, 3, 3] = diagonal[3, 3, 3] = True
    settings = LesionSettings(dilation=1, smallest=0.0)
    for prediction, found in ((beside, 1), (diagonal, 0)):
        got = lesion_wise(truth, Components.of_mask(prediction), (1.0, 1.0, 1.0), settings)
        assert (got.found, got.invented, got.missed) == (found, 1 - found, 1 - found)


def test_a_component_counts_for_each_lesion_that_it_meets():
    truth, prediction = np.zeros((2, 5, 6, 40), bool)
    truth[1:3, 1:3, 1:15] = truth[1:3, 1:3, 22:36] = True
    prediction[1:3, 1:3, 1:36] = True
    got = lesion_wise(truth, Components.of_mask(prediction), (1.0, 1.0, 1.0))
    assert [lesion.dice for lesion in got.lesions] == pytest.approx([2 * 56 / (56 + 140)] * 2)
    assert got.dice == pytest.approx(2 * 56 / 196) and got.invented == 0


def test_empty_masks():
    empty, some = np.zeros((5, 6, 7), bool), np.ones((5, 6, 7), bool)
    for truth, prediction, expected in (
        (empty, empty, (1.0, 0.0, 0, 0, 0)),
        (empty, some, (0.0, 374.0, 0, 1, 0)),
        (some, empty, (0.0, 374.0, 0, 0, 1)),
    ):
        got = lesion_wise(truth, Components.of_mask(prediction), (1.0, 1.0, 1.0))
        assert (got.dice, got.hd95, got.found, got.invented, got.missed) == expected


def test_unknown_challenge_and_bad_settings():
    with pytest.raises(ValueError, match="GLI, SSA, PED, MEN, MET"):
        LesionSettings.of_challenge("BRAIN")
    with pytest.raises(ValueError, match="dilation"):
        LesionSettings(dilation=0)
