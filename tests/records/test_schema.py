import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config_file import load_experiment
from kerasseg.datasets.discovery import discover
from kerasseg.records import example, schema
from tests.conftest import SHAPE


@pytest.fixture(scope="module")
def case():
    shape = f"data.phantom.shape={list(SHAPE)}"
    return discover(load_experiment(None, [shape, "data.phantom.seed=5"]).data)[0].load()


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


def test_encode_decode_round_trip(case):
    encoded = schema.encode(case, 50)
    stored = schema.decode(encoded.payload)
    box = tuple(
        slice(o, o + n) for o, n in zip(stored.offset, stored.case.image.shape, strict=False)
    )
    assert stored.full_shape == SHAPE and encoded.offset == stored.offset
    np.testing.assert_array_equal(stored.case.label, case.label[box])
    assert case.label.sum() == stored.case.label.sum(), "the crop loses no tumour"
    mean, std = np.array(encoded.mean), np.array(encoded.std)
    raw = case.image[box]
    expected = np.where(raw != 0, (raw - mean) / std, 0)
    np.testing.assert_allclose(stored.case.image, expected, atol=4e-3)  # float16
    np.testing.assert_array_equal(stored.case.affine, case.affine)
    assert stored.case.modalities == case.modalities
    assert stored.case.patient_id == case.patient_id and stored.case.spacing == case.spacing


@pytest.mark.parametrize("most", [5, 10_000])
def test_foreground_coordinates_are_of_their_class(case, most):
    features = example.parse(schema.encode(case, most).payload)
    label = np.frombuffer(features["label"][0], np.uint8).reshape(features["shape"][:3])
    for class_id, key in enumerate(schema.FOREGROUND_KEYS, start=1):
        voxels = np.frombuffer(features[key][0], "<i2").reshape(-1, 3)
        assert len(voxels) == min(most, (label == class_id).sum())
        assert (label[tuple(voxels.T)] == class_id).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels)


def test_encoding_is_deterministic(case):
    assert schema.encode(case, 20).payload == schema.encode(case, 20).payload
    other = dataclasses.replace(case, case_id="other")
    assert schema.encode(other, 20).payload != schema.encode(case, 20).payload
