import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config.load import load_experiment
from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError
from kerasseg.records import schema
from kerasseg.records import tfrecord as example
from tests.conftest import SHAPE
from tests.records.random_case import GRID, random_case


@pytest.fixture(scope="module")
def case():
    shape = f"data.phantom.shape={list(SHAPE)}"
    return discover(load_experiment(None, [shape, "data.phantom.seed=5"]).data)[0].load()


def box_of(stored: schema.StoredCase) -> tuple[slice, ...]:
    shape = stored.case.image.shape[:3]
    return tuple(slice(o, o + n) for o, n in zip(stored.offset, shape, strict=True))


def test_tensorflow_reads_the_same_features(case):
    encoded = schema.encode(case, 50)
    theirs = tf.train.Example.FromString(encoded.payload).features.feature
    ours = example.parse(encoded.payload)
    assert set(theirs) == set(ours)
    for name, feature in theirs.items():
        kind = feature.WhichOneof("kind")
        assert list(getattr(feature, kind).value) == ours[name]
    assert theirs["case_id"].bytes_list.value[0] == b"phantom_0000"
    assert theirs["affine"].bytes_list.value[0] == np.asarray(case.affine, "<f8").tobytes()


def test_the_table_in_the_docstring_names_every_feature(case):
    written = set(example.parse(schema.encode(case, 5).payload))
    cells = [line.split("|")[1] for line in schema.__doc__.splitlines() if line.startswith("| ")]
    named = {name.strip() for cell in cells[1:] for name in cell.split(",")}
    assert named - {"foreground_<id>"} == written - set(schema.FOREGROUND_KEYS)


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_encode_decode_round_trip(case, compression):
    encoded = schema.encode(case, 50, compression)
    stored = schema.decode(encoded.payload)
    box = box_of(stored)
    assert stored.full_shape == SHAPE and encoded.offset == stored.offset
    np.testing.assert_array_equal(stored.case.label, case.label[box])
    assert case.label.sum() == stored.case.label.sum(), "the crop loses no tumour"
    mean, std = np.array(encoded.mean), np.array(encoded.std)
    raw = case.image[box]
    expected = np.where(raw != 0, (raw - mean) / std, 0)
    assert stored.case.image.dtype == np.float32
    np.testing.assert_allclose(stored.case.image, expected, atol=4e-3)  # float16
    np.testing.assert_array_equal(stored.case.affine, case.affine)
    assert stored.case.modalities == case.modalities
    assert stored.case.patient_id == case.patient_id and stored.case.spacing == case.spacing


@given(
    st.tuples(*[st.integers(1, 19)] * 3),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from(["none", "zlib"]),
    st.integers(0, 999),
)
def test_every_case_comes_back(shape, brain, tumour, compression, seed):
    case = random_case(shape, channels=3, brain=brain, tumour=tumour, seed=seed)
    encoded = schema.encode(case, 5, compression)
    stored = schema.decode(encoded.payload)
    box = box_of(stored)
    signal = case.image != 0
    assert (stored.case.image[~signal[box]] == 0).all()
    assert stored.case.label.sum() == case.label.sum(), "labels outside the brain too"
    np.testing.assert_array_equal(stored.case.label, case.label[box])
    for channel in range(3):
        raw = case.image[..., channel].astype(np.float64)
        inside = raw[signal[..., channel]]
        if inside.size:
            np.testing.assert_allclose(encoded.mean[channel], inside.mean(), rtol=1e-6)
            np.testing.assert_allclose(encoded.std[channel], inside.std(), atol=1e-3)
            scored = np.where(raw != 0, (raw - inside.mean()) / (inside.std() + 1e-8), 0)
            found = stored.case.image[..., channel]
            np.testing.assert_allclose(found, scored[box], rtol=1e-2, atol=1e-2)
    assert np.isfinite(stored.case.image).all()


def test_only_voxels_with_a_signal_or_a_label_are_stored(case):
    features = example.parse(schema.encode(case, 50).payload)
    stored = case.image.any(axis=-1) | (case.label > 0)
    values = np.frombuffer(features["values"][0], "<f2").reshape(-1, 4)
    labels = np.frombuffer(features["labels"][0], np.uint8)
    assert len(values) == len(labels) == stored.sum() + 1
    assert not values[0].any() and labels[0] == 0
    np.testing.assert_array_equal(labels[1:], case.label[stored])


def test_row_starts_and_voxels_of_slices_against_counting():
    case = random_case((5, 6, 11), brain=0.3, tumour=0.1)
    stored = schema.decode(schema.encode(case, 5).payload)
    features = example.parse(schema.encode(case, 5).payload)
    box = box_of(stored)
    mask = (case.image.any(axis=-1) | (case.label > 0))[box]
    row_start = np.frombuffer(features["row_start"][0], "<i4").reshape(mask.shape[:2])
    for d, h in np.ndindex(mask.shape[:2]):
        assert row_start[d, h] == mask[:d].sum() + mask[d, :h].sum()
    for key, voxels in (("brain_voxels", mask), ("tumour_voxels", case.label[box] > 0)):
        expected = [np.take(voxels, i, a).sum() for a in range(3) for i in range(mask.shape[a])]
        np.testing.assert_array_equal(np.frombuffer(features[key][0], "<i4"), expected)


def test_a_label_outside_the_brain_widens_the_box():
    case = random_case((6, 7, 8), brain=0, tumour=0)
    case.image[2:4, 2:5, 3:5] = 9
    case.image[2, 2, 3] = 4
    case.label[5, 6, 0] = 2
    case.box = (slice(2, 4), slice(2, 5), slice(3, 5))
    encoded = schema.encode(case, 5)
    stored = schema.decode(encoded.payload)
    assert encoded.offset == (2, 2, 0) and stored.case.label[3, 4, 0] == 2
    assert not stored.case.image[3, 4, 0].any() and stored.case.image[0, 0, 3].all()
    assert encoded.payload == schema.encode(dataclasses.replace(case, box=None), 5).payload


def test_grid_classes_and_attributes_come_back():
    case = random_case((5, 6, 7), tumour=0)
    case.label[1, 2, 3] = 1
    case.classes = "tumour"
    encoded = schema.encode(case, 5)
    stored = schema.decode(encoded.payload).case
    assert encoded.voxels == {"tumour": 1} and stored.classes == "tumour"
    assert stored.grid.shape == GRID.shape
    np.testing.assert_array_equal(stored.grid.affine, GRID.affine)
    assert stored.attributes == case.attributes
    features = example.parse(encoded.payload)
    assert json.loads(features["attributes"][0]) == case.attributes
    assert features["foreground_2"] == features["foreground_3"] == [b""]


@pytest.mark.parametrize("most", [5, 10_000])
def test_foreground_coordinates_are_of_their_class(case, most):
    encoded = schema.encode(case, most)
    features = example.parse(encoded.payload)
    label = schema.decode(encoded.payload).case.label
    for class_id, key in enumerate(schema.FOREGROUND_KEYS, start=1):
        voxels = np.frombuffer(features[key][0], "<i2").reshape(-1, 3)
        assert len(voxels) == min(most, (label == class_id).sum())
        assert (label[tuple(voxels.T)] == class_id).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels)
    assert encoded.voxels == {
        name: (label == i).sum() for i, name in enumerate(("NCR", "ED", "ET"), start=1)
    }


def test_encoding_is_deterministic(case):
    assert schema.encode(case, 20).payload == schema.encode(case, 20).payload
    other = dataclasses.replace(case, case_id="other")
    assert schema.encode(other, 20).payload != schema.encode(case, 20).payload


def test_the_voxel_hash_knows_the_same_scan_under_another_name(case):
    known = schema.encode(case, 20).voxel_hash
    assert len(known) == 32 and set(known) <= set("0123456789abcdef")
    other = dataclasses.replace(case, case_id="other", patient_id="other", attributes={"a": "b"})
    assert schema.encode(other, 7, "zlib").voxel_hash == known
    outside = case.label.copy()
    outside[0, 0, 0] = 3
    assert not case.image[0, 0, 0].any()
    for label in (np.zeros_like(case.label), outside):
        assert schema.encode(dataclasses.replace(case, label=label), 20).voxel_hash == known
    changed = case.image.copy()
    changed[tuple(np.argwhere(case.image.all(axis=-1))[0])] *= 1.5
    assert schema.encode(dataclasses.replace(case, image=changed), 20).voxel_hash != known
    flipped = case.image[:, :, ::-1]
    assert schema.encode(dataclasses.replace(case, image=flipped), 20).voxel_hash != known


def test_a_side_that_coordinates_cannot_count_is_refused(case):
    wide = np.zeros((1, 2, 40_000, 1), np.float32)
    wide[..., :2, :] = wide[..., -2:, :] = 1
    label = np.zeros(wide.shape[:3], np.uint8)
    long = dataclasses.replace(case, image=wide, label=label, box=None, signal=None)
    with pytest.raises(UserError, match=r"\(1, 2, 40000\) voxels, expected at most 32767"):
        schema.encode(long, 10)


def test_a_case_without_a_label_is_refused(case):
    with pytest.raises(ValueError, match="phantom_0000 has no label"):
        schema.encode(dataclasses.replace(case, label=None), 5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_that_lie_apart_in_memory_make_the_same_record(case, axis):
    """A reader may have stacked its channels along another axis and given a view."""
    apart = np.moveaxis(np.ascontiguousarray(np.moveaxis(case.image, -1, axis)), axis, -1)
    assert apart.strides != case.image.strides
    turned = dataclasses.replace(case, image=apart)
    assert schema.encode(turned, 100).payload == schema.encode(case, 100).payload
