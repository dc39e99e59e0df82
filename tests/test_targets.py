"""Every label and every combination of masks, against tables written out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasseg import anatomy
from kerasseg.targets import convert_masks, label_to_masks, masks_to_label, probabilities_to_masks

MASKS_OF_LABEL = {
    "labels": {0: "1000", 1: "0100", 2: "0010", 3: "0001"},  # background NCR ED ET
    "subregions": {0: "000", 1: "100", 2: "010", 3: "001"},  # NCR ED ET
    "regions": {0: "000", 1: "110", 2: "100", 3: "111"},  # WT TC ET
    "binary": {0: "0", 1: "1", 2: "1", 3: "1"},
}

SUBREGIONS = {
    # NCR ED ET: ET over NCR over ED
    "000": 0,
    "100": 1,
    "010": 2,
    "001": 3,
    "110": 1,
    "101": 3,
    "011": 3,
    "111": 3,
}

LABEL_OF_MASKS = {
    # The background says nothing where tumour holds, and is what is left where nothing does.
    "labels": {b + rest: label for rest, label in SUBREGIONS.items() for b in "01"},
    "subregions": SUBREGIONS,
    "regions": {
        # WT TC ET: what BraTS and nnU-Net write last stays
        "000": 0,
        "100": 2,
        "110": 1,
        "111": 3,
        "010": 1,  # core outside the whole tumour
        "001": 3,
        "011": 3,
        "101": 3,
    },
    "binary": {"0": 0, "1": 1},
}

CONVERSIONS = {
    # Sub-regions NCR ED ET -> WT TC ET, the unions
    ("subregions", "regions"): {
        "000": "000",
        "100": "110",
        "010": "100",
        "001": "111",
        "110": "110",
        "101": "111",
        "011": "111",
        "111": "111",
    },
    # WT TC ET -> NCR ED ET, the differences
    ("regions", "subregions"): {
        "000": "000",
        "100": "010",
        "110": "100",
        "111": "001",
        "010": "100",
        "001": "001",
        "011": "001",
        "101": "001",
    },
    ("regions", "labels"): {
        "000": "1000",
        "100": "0010",
        "110": "0100",
        "111": "0001",
        "010": "0100",
        "001": "0001",
        "011": "0001",
        "101": "0001",
    },
    ("labels", "regions"): {"1000": "000", "0100": "110", "0010": "100", "0001": "111"},
    ("labels", "subregions"): {"1000": "000", "0100": "100", "0010": "010", "0001": "001"},
    ("subregions", "labels"): {"000": "1000", "100": "0100", "010": "0010", "001": "0001"},
}


def bits(rows):
    """("100", "010") -> (2, 3) bool."""
    return np.array([[c == "1" for c in row] for row in rows])


def combinations(target):
    return ["".join(row) for row in itertools.product("01", repeat=len(anatomy.TARGETS[target]))]


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_every_label(target):
    table = MASKS_OF_LABEL[target]
    assert set(table) == set(anatomy.LABELS)
    for dtype in (np.uint8, np.int64):
        masks = label_to_masks(np.array(list(table), dtype), target)
        np.testing.assert_array_equal(masks, bits(table.values()))
        assert masks.dtype == bool
    scan = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    masks = label_to_masks(scan, target)
    assert masks.shape == (3, 4, 5, len(anatomy.TARGETS[target]))
    for channel, ids in enumerate(anatomy.TARGETS[target].values()):
        np.testing.assert_array_equal(masks[..., channel], np.isin(scan, ids))


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_every_combination_of_masks(target):
    table = LABEL_OF_MASKS[target]
    assert sorted(table) == sorted(combinations(target)), "the table is complete"
    masks = bits(table)
    for given_masks in (masks, masks.astype(np.uint8)):
        label = masks_to_label(given_masks, target)
        np.testing.assert_array_equal(label, list(table.values()))
        assert label.dtype == np.uint8


@pytest.mark.parametrize("target", ["labels", "subregions", "regions"])
def test_a_label_comes_back_from_its_masks(target):
    label = np.random.default_rng(1).integers(0, 4, (5, 4, 3, 2)).astype(np.uint8)
    np.testing.assert_array_equal(masks_to_label(label_to_masks(label, target), target), label)


def test_of_the_whole_tumour_only_its_place_comes_back():
    label = np.array([0, 1, 2, 3], np.uint8)
    found = masks_to_label(label_to_masks(label, "binary"), "binary")
    np.testing.assert_array_equal(found, [0, *[anatomy.TUMOUR] * 3])
    assert anatomy.CLASSES["tumour"]["tumour"] == anatomy.TUMOUR


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions_of_every_combination(source, target):
    table = CONVERSIONS[source, target]
    found = convert_masks(bits(table), source, target)
    np.testing.assert_array_equal(found, bits(table.values()))
    if "labels" not in (source, target):
        assert sorted(table) == sorted(combinations(source))


@pytest.mark.parametrize("source", ["labels", "subregions", "regions"])
def test_anything_becomes_the_whole_tumour(source):
    rows = combinations(source)
    tumour = [("1" in row[1:] if source == "labels" else "1" in row) for row in rows]
    np.testing.assert_array_equal(
        convert_masks(bits(rows), source, "binary"), np.array(tumour)[:, None]
    )


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_masks_of_the_same_target_stay_as_they_are(target):
    masks = bits(combinations(target))
    np.testing.assert_array_equal(convert_masks(masks, target, target), masks)


@pytest.mark.parametrize("target", ["labels", "subregions", "regions"])
def test_the_whole_tumour_becomes_nothing_else(target):
    with pytest.raises(ValueError, match=f"binary cannot become {target}.*necrotic core"):
        convert_masks(np.ones((2, 3, 1), bool), "binary", target)


@given(
    hnp.arrays(np.uint8, (3, 4), elements=st.integers(0, 3)),
    st.permutations(sorted(MASKS_OF_LABEL)),
)
def test_any_way_of_conversions_ends_at_the_same_masks(label, way):
    """Of a true segmentation: through any targets, as long as the whole tumour comes last."""
    way = [target for target in way if target != "binary"] + ["binary"]
    masks = label_to_masks(label, way[0])
    for source, target in itertools.pairwise(way):
        masks = convert_masks(masks, source, target)
        np.testing.assert_array_equal(masks, label_to_masks(label, target))


def test_softmax_takes_the_most_probable_channel_whatever_the_threshold():
    probabilities = np.array(
        [
            [0.40, 0.30, 0.20, 0.10],
            [0.10, 0.20, 0.30, 0.40],
            [0.25, 0.25, 0.25, 0.25],
            [0.10, 0.40, 0.40, 0.10],
        ]
    )
    for threshold in (0.01, 0.5, 0.99):
        masks = probabilities_to_masks(probabilities, "labels", threshold)
        np.testing.assert_array_equal(masks, bits(["1000", "0001", "1000", "0100"]))
        assert masks.dtype == bool
    many = np.random.default_rng(0).random((3, 4, 5, 4))
    found = masks_to_label(probabilities_to_masks(many, "labels"), "labels")
    np.testing.assert_array_equal(found, many.argmax(axis=-1))


@pytest.mark.parametrize("target", ["subregions", "regions", "binary"])
def test_each_sigmoid_channel_holds_from_the_threshold_on(target):
    count = len(anatomy.TARGETS[target])
    probabilities = np.random.default_rng(0).random((4, 5, count)).astype(np.float32)
    probabilities[0, 0] = 0.25
    np.testing.assert_array_equal(
        probabilities_to_masks(probabilities, target, 0.25), probabilities >= 0.25
    )
    np.testing.assert_array_equal(
        probabilities_to_masks(probabilities, target), probabilities >= 0.5
    )


def test_wrong_channels_and_ids_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*4 channel\(s\).*labels \(background, N"):
        masks_to_label(np.ones((2, 3), bool), "labels")
    with pytest.raises(ValueError, match=r"1 channel\(s\) of the target binary"):
        probabilities_to_masks(np.ones((2, 3)), "binary")
    with pytest.raises(ValueError, match="target regions"):
        convert_masks(np.ones(4, bool), "regions", "regions")
    for wrong in (4, 255):
        with pytest.raises(ValueError, match=f"ids from 0 to {wrong}"):
            label_to_masks(np.array([0, wrong], np.uint8), "labels")
    with pytest.raises(ValueError, match="ids from -1"):
        label_to_masks(np.array([-1, 2]), "regions")
    assert label_to_masks(np.zeros((0, 3), np.uint8), "regions").shape == (0, 3, 3)
