"""Which operations a target's channels go through, and in which order."""

import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.postprocessing import clean_up, finished_masks
from kerasseg.targets import label_to_masks, masks_to_label

ONE = (1.0, 1.0, 1.0)
NCR, ED, ET = anatomy.NCR, anatomy.ED, anatomy.ET


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
def test_off_is_off(target):
    masks = label_to_masks(tumour(), target)
    np.testing.assert_array_equal(clean_up(masks, target, ONE, PostprocessingSettings()), masks)


@pytest.mark.parametrize("how", [{"minimum_volume": {"WT": 12.5}}, {"keep_largest": ["WT"]}])
def test_what_goes_from_a_region_goes_from_those_inside(how):
    label = tumour()
    masks = label_to_masks(label, "regions")
    before = masks.copy()
    found = clean_up(masks, "regions", ONE, PostprocessingSettings(**how))
    label[:, 10:] = 0
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))
    np.testing.assert_array_equal(masks, before, "the input is as it was")


def test_a_component_just_large_enough_stays():
    masks = label_to_masks(tumour(), "regions")
    settings = PostprocessingSettings(minimum_volume={"WT": 12})
    np.testing.assert_array_equal(clean_up(masks, "regions", ONE, settings), masks)
    half = (1.0, 0.5, 1.0)
    assert not clean_up(masks, "regions", half, settings)[:, 10:].any()


@pytest.mark.parametrize("target", ["labels", "subregions", "binary"])
def test_of_sub_regions_each_goes_by_itself(target):
    label = tumour()
    channels = list(anatomy.tumour_channels(target))
    settings = PostprocessingSettings(keep_largest=channels, minimum_volume={channels[0]: 1})
    found = clean_up(label_to_masks(label, target), target, ONE, settings)
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
    found = clean_up(label_to_masks(label, target), target, ONE, settings)
    label[2, 6, 6] = ED
    np.testing.assert_array_equal(found, label_to_masks(label, target))


def test_what_is_added_to_a_region_is_added_around_it():
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:4, 1:5, 1:6] = NCR
    label[2, 2:4, 2:4] = 0
    settings = PostprocessingSettings(fill_holes=["TC"])
    found = clean_up(label_to_masks(label, "regions"), "regions", ONE, settings)
    label[2, 2:4, 2:4] = NCR
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))


def test_enhancing_tumour_last():
    """Two voxels of it are enough, but the smaller tumour has gone before they are counted."""
    settings = {"minimum_enhancing": 2}
    masks = label_to_masks(tumour(), "regions")
    kept = clean_up(masks, "regions", ONE, PostprocessingSettings(**settings))
    np.testing.assert_array_equal(kept, masks)
    settings |= {"keep_largest": ["WT"]}
    found = clean_up(masks, "regions", ONE, PostprocessingSettings(**settings))
    label = tumour()
    label[:, 10:] = 0
    label[label == ET] = NCR
    np.testing.assert_array_equal(found, label_to_masks(label, "regions"))


def test_thresholds_of_each_channel():
    probabilities = np.random.default_rng(0).random((3, 4, 5, 3)).astype(np.float32)
    settings = PostprocessingSettings(thresholds={"TC": 0.25, "ET": 0.75})
    found = finished_masks(probabilities, "regions", ONE, 0.4, settings)
    for channel, threshold in enumerate((0.4, 0.25, 0.75)):
        np.testing.assert_array_equal(found[..., channel], probabilities[..., channel] >= threshold)
