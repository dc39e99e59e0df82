"""TensorFlow Serving's protocols, spoken with its own stubs and with plain HTTP."""

import base64
import gzip
import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from benchmarks.serving_model import METADATA, expected_label, expected_probabilities
from kerasseg.serving.client import pack_volume

SPACING = [1.0, 2.0, 3.0]


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(signature: str, version: int | None = None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "kerasseg"
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def http(server, path: str, body=None, headers=()) -> tuple[int, bytes]:
    """Status and body; `body` bytes, or what becomes JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.rest}{path}"
    request = urllib.request.Request(url, body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask(server, body, path: str = "/v1/models/kerasseg:predict") -> dict:
    status, text = http(server, path, body)
    assert status == 200, text
    return json.loads(text)


@pytest.mark.parametrize("wanted", [False, True])
def test_grpc_segment(stub, volume, wanted):
    request = predict_request("segment", volume=volume, spacing=SPACING, probabilities=wanted)
    response = stub.Predict(request, timeout=20)
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "segment"
    labels = tf.make_ndarray(response.outputs["labels"])
    assert labels.dtype == np.uint8 and np.array_equal(labels, expected_label(volume))
    maps = tf.make_ndarray(response.outputs["probabilities"])
    expected = expected_probabilities(volume) if wanted else np.zeros((0, 0, 0, 3))
    assert maps.shape == expected.shape and np.allclose(maps, expected, atol=1e-6)
    request.output_filter.append("labels")
    assert list(stub.Predict(request, timeout=20).outputs) == ["labels"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("divisor", [1, 8, 3])
def test_grpc_segment_bytes(stub, volume, compress, divisor):
    volume = volume / np.float32(divisor)
    packed = pack_volume(volume, compress=compress)
    request = predict_request(
        "segment_bytes",
        data_bytes=packed.data,
        shape=np.array(packed.shape, np.int32),
        dtype=packed.dtype,
        compression=packed.compression,
        spacing=SPACING,
        probabilities=True,
    )
    outputs = stub.Predict(request, timeout=20).outputs
    labels = np.frombuffer(outputs["labels_bytes"].string_val[0], np.uint8)
    assert np.array_equal(labels.reshape(volume.shape[:3]), expected_label(volume))
    assert tf.make_ndarray(outputs["shape"]).tolist() == list(volume.shape[:3])
    maps = np.frombuffer(outputs["probabilities_bytes"].string_val[0], "<f2")
    assert np.allclose(
        maps.reshape(*volume.shape[:3], 3), expected_probabilities(volume), atol=1e-3
    )


def test_grpc_metadata_and_status(channel, stub, volume):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "kerasseg"
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    names = {"segment", "segment_bytes", "metadata", "serving_default"}
    assert set(signatures.signature_def) == names
    shape = signatures.signature_def["serving_default"].inputs["inputs"].tensor_shape
    assert [dim.size for dim in shape.dim] == [-1, -1, -1, -1, 4]
    about = stub.Predict(predict_request("metadata", version=1, request=""), timeout=20)
    told = json.loads(about.outputs["json"].string_val[0])
    assert told["labels"] == METADATA["labels"] and told["modalities"] == [*METADATA["modalities"]]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "kerasseg"
    answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=20)
    (only,) = answer.model_version_status
    assert only.version == 1 and only.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    patches = predict_request("", inputs=volume[None, :4, :5, :6])
    maps = tf.make_ndarray(stub.Predict(patches, timeout=20).outputs["probabilities"])
    assert np.allclose(maps[0], expected_probabilities(volume[:4, :5, :6]), atol=1e-6)


def test_rest_columns(server, volume):
    small = volume[:5, :6, :7]
    inputs = {"volume": small.tolist(), "spacing": SPACING, "probabilities": True}
    answer = ask(server, {"signature_name": "segment", "inputs": inputs})
    assert np.array_equal(answer["outputs"]["labels"], expected_label(small))
    maps = np.array(answer["outputs"]["probabilities"])
    assert np.allclose(maps, expected_probabilities(small), atol=1e-6)
    packed = pack_volume(small, compress=True)
    inputs = {
        "data_bytes": {"b64": base64.b64encode(packed.data).decode()},
        "shape": packed.shape,
        "dtype": packed.dtype,
        "compression": "gzip",
        "spacing": SPACING,
        "probabilities": False,
    }
    path = "/v1/models/kerasseg/versions/1:predict"
    outputs = ask(server, {"signature_name": "segment_bytes", "inputs": inputs}, path)["outputs"]
    labels = np.frombuffer(base64.b64decode(outputs["labels_bytes"]["b64"]), np.uint8)
    assert np.array_equal(labels.reshape(small.shape[:3]), expected_label(small))
    assert outputs["shape"] == [5, 6, 7] and outputs["probabilities_bytes"] == {"b64": ""}


def test_rest_one_input_and_one_output_need_no_name(server, volume):
    patches = np.stack([volume[:2, :3, :4], volume[3:5, :3, :4]])
    expected = expected_probabilities(patches)
    for body in ({"inputs": patches.tolist()}, {"inputs": {"inputs": patches.tolist()}}):
        assert np.allclose(ask(server, body)["outputs"], expected, atol=1e-6)
    rows = [{"inputs": patch.tolist()} for patch in patches]
    for body in ({"instances": patches.tolist()}, {"instances": rows}):
        assert np.allclose(ask(server, body)["predictions"], expected, atol=1e-6)
    told = ask(server, {"signature_name": "metadata", "inputs": ""})["outputs"]
    assert json.loads(told)["target"] == "regions"
    packed = gzip.compress(json.dumps({"inputs": patches.tolist()}).encode())
    status, text = http(
        server, "/v1/models/kerasseg:predict", packed, {"Content-Encoding": "gzip"}.items()
    )
    assert status == 200 and np.allclose(json.loads(text)["outputs"], expected, atol=1e-6)


def test_rest_status_metadata_health_and_metrics(server):
    for path in ("/v1/models/kerasseg", "/v1/models/kerasseg/versions/1"):
        status, text = http(server, path)
        message = json_format.Parse(text, get_model_status_pb2.GetModelStatusResponse())
        (only,) = message.model_version_status
        assert status == 200 and (only.version, only.state) == (1, 30)
        assert json.loads(text)["model_version_status"][0]["status"]["error_code"] == "OK"
    status, text = http(server, "/v1/models/kerasseg/metadata")
    signatures = json.loads(text)["metadata"]["signature_def"]["signature_def"]
    assert signatures["segment"]["inputs"]["volume"]["dtype"] == "DT_FLOAT"
    assert http(server, "/healthz")[0] == 200 and http(server, "/readyz")[0] == 200
    ask(server, {"signature_name": "metadata", "inputs": ""})
    http(server, "/v1/models/made-up-by-a-caller:predict", {"inputs": 1})
    text = http(server, "/metrics")[1].decode()
    labels = 'code="OK",model="kerasseg",protocol="rest",signature="metadata"'
    assert f"kerasseg_requests_total{{{labels}}}" in text
    assert 'kerasseg_loaded_version{model="kerasseg",version="1"} 1.0' in text
    assert 'kerasseg_queue_length{model="kerasseg"} 0.0' in text
    assert "kerasseg_request_seconds_bucket" in text and "process_resident_memory_bytes" in text
    assert "made-up-by-a-caller" not in text
