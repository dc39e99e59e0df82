"""A SavedModel in this process: its warm-up, and what its graph refuses."""

import gzip
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from kerasseg.datasets.phantom import make_phantom
from kerasseg.serving.server.limits import Limits, Reason, Refusal
from kerasseg.serving.server.loaded_version import WARM_UP_FILE, LoadedVersion
from tests.conftest import SHAPE
from tests.older.test_before_house import ARCHIVE
from tests.serving.test_protocols import predict_request


def write_warm_up(folder, volume) -> None:
    log = prediction_log_pb2.PredictionLog()
    request = predict_request("segment", volume=volume, spacing=[1.0] * 3, probabilities=True)
    log.predict_log.request.CopyFrom(request)
    (folder / WARM_UP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARM_UP_FILE)) as file:
        file.write(log.SerializeToString())


def test_warm_up_requests_are_replayed(models, tmp_path, volume, monkeypatch):
    folder = shutil.copytree(models / "kerasseg" / "1", tmp_path / "1")
    write_warm_up(folder, volume)
    ran, run = [], LoadedVersion.run
    monkeypatch.setattr(
        LoadedVersion,
        "run",
        lambda self, *given: ran.append(given) or run(self, *given),
    )
    LoadedVersion("kerasseg", 1, folder, Limits())
    ((signature, inputs),) = ran
    assert signature == "segment" and np.array_equal(inputs["volume"], volume)
    write_warm_up(folder, volume[..., :3])
    with pytest.raises(Refusal, match=r"expected \(depth, height, width, 4\)"):
        LoadedVersion("kerasseg", 1, folder, Limits())


def test_what_the_graph_says_is_passed_on(tmp_path):
    class Picky(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def call(self, x):
            tf.debugging.Assert(tf.size(x) > 2, ["x's shape is [2], not [3]: send more.", x])
            return {"y": tf.linalg.inv(tf.linalg.diag(x)), "s": tf.constant([b"a", b"bc"])}

    picky = Picky()
    tf.saved_model.save(picky, str(tmp_path), signatures=picky.call)
    loaded = LoadedVersion("picky", 1, tmp_path, Limits())
    outputs = loaded.run("serving_default", {"x": np.float32([1, 2, 4])})
    assert np.allclose(outputs["y"], np.diag([1, 0.5, 0.25]))
    assert outputs["s"].tolist() == [b"a", b"bc"]
    with pytest.raises(Refusal, match=r"^x's shape is \[2\], not \[3\]: send more\.$") as caught:
        loaded.run("serving_default", {"x": np.float32([1, 2])})
    assert caught.value.reason is Reason.BAD_INPUT
    with pytest.raises(Refusal, match="not invertible") as caught:
        loaded.run("serving_default", {"x": np.zeros(3, np.float32)})
    assert "\n" not in caught.value.sentence


def test_inputs_that_are_not_the_signatures_are_refused(tmp_path):
    """A model of other origin, whose signature has a fixed shape."""

    class Fixed(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def call(self, x):
            return {"y": x}

    fixed = Fixed()
    tf.saved_model.save(fixed, str(tmp_path), signatures=fixed.call)
    loaded = LoadedVersion("fixed", 1, tmp_path, Limits())
    loaded.check("serving_default", {"x": np.zeros((5, 3), np.float32)})
    for inputs, sentence in (
        ({"x": np.zeros((5, 2), np.float32)}, r"x has the shape \(5, 2\), expected \(any, 3\)"),
        ({"x": np.zeros((5, 3))}, "x is float64, expected float32"),
        ({"x": np.zeros((0, 3), np.float32)}, r"x is empty: its shape is \(0, 3\)"),
        ({"x": np.full((1, 3), np.nan, np.float32)}, "NaN or infinite"),
        ({}, r"takes x: add x\."),
        ({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1)}, r"leave out z\."),
    ):
        with pytest.raises(Refusal, match=sentence):
            loaded.check("serving_default", inputs)


def test_a_model_that_was_exported_before_is_served(tmp_path):
    """Its warm-up requests are replayed; it gets plain bytes and gzip, and refuses as ever."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    loaded = LoadedVersion("before", 1, tmp_path / "exported" / "1", Limits())
    image = make_phantom(SHAPE, seed=5, index=1)[0]
    data = image.astype("<f4").tobytes()
    inputs = {
        "data_bytes": np.asarray(data, object),
        "shape": np.array([*SHAPE, 4], np.int32),
        "dtype": np.asarray(b"float32", object),
        "compression": np.asarray(b"", object),
        "spacing": np.ones(3, np.float32),
        "probabilities": np.asarray(False),
    }
    loaded.check("segment_bytes", inputs)
    labels = loaded.run("segment_bytes", inputs)["labels_bytes"].item()
    packed = {
        "data_bytes": np.asarray(gzip.compress(data), object),
        "compression": np.asarray(b"gzip", object),
    }
    assert loaded.run("segment_bytes", inputs | packed)["labels_bytes"].item() == labels
    expected = np.load(tmp_path / "expected.npz")["label"]
    assert np.count_nonzero(np.frombuffer(labels, np.uint8).reshape(SHAPE) != expected) <= 3
    with pytest.raises(Refusal, match="NaN or infinite"):
        volume = np.full((*SHAPE, 4), np.nan, np.float32)
        loaded.run(
            "segment",
            {"volume": volume, "spacing": inputs["spacing"], "probabilities": np.asarray(False)},
        )
