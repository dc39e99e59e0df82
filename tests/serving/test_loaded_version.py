"""A SavedModel in this process: its warm-up, and what its graph refuses."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from kerasseg.serving.server.checks import Limits, Reason, Refusal
from kerasseg.serving.server.models import WARM_UP_FILE, LoadedVersion
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
        LoadedVersion, "run", lambda self, *words: ran.append(words) or run(self, *words)
    )
    LoadedVersion("kerasseg", 1, folder, Limits())
    ((signature, inputs),) = ran
    assert signature == "segment" and np.array_equal(inputs["volume"], volume)
    write_warm_up(folder, volume[..., :3])
    with pytest.raises(Refusal, match=r"expected \(any, any, any, 4\)"):
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
