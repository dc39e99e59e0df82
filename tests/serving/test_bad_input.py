"""Requests that a server refuses: each gets a status code and a sentence, and the server goes on.

Where the sentence speaks of "the volume", it is the graph's; the server adds only its limits.
"""

import base64
import gzip
import json
import socket
import time
from http.client import HTTPConnection

import grpc
import numpy as np
import psutil
import pytest
from isal import igzip
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest

from tests.serving.test_protocols import SPACING, channel, http, predict_request, stub

__all__ = ["channel", "stub"]  # fixtures
MIB = 2**20
SHAPE = (2, 3, 5, 4)
VOLUME = np.arange(120, dtype=np.float32).reshape(SHAPE)
CODES = grpc.StatusCode
HTTP = {
    CODES.INVALID_ARGUMENT: 400,
    CODES.NOT_FOUND: 404,
    CODES.RESOURCE_EXHAUSTED: 413,
}


def segment(**changes) -> dict:
    inputs = {"volume": VOLUME, "spacing": np.float32(SPACING), "probabilities": np.bool_(False)}
    return {**inputs, **changes}


def in_bytes(**changes) -> dict:
    inputs = {
        "data_bytes": VOLUME.astype("<i2").tobytes(),
        "shape": np.int32(SHAPE),
        "dtype": b"int16",
        "compression": b"",
        "spacing": np.float32(SPACING),
        "probabilities": np.bool_(False),
    }
    return {**inputs, **changes}


def with_value(value: float) -> np.ndarray:
    volume = VOLUME.copy()
    volume[1, 2, 3, 0] = value
    return volume


GZIP, INT16 = b"gzip", VOLUME.astype("<i2").tobytes()
BOMB = igzip.compress(bytes(512 * MIB), 1)
BAD, LARGE = CODES.INVALID_ARGUMENT, CODES.RESOURCE_EXHAUSTED
SEGMENT = {
    "wrong rank": (segment(volume=VOLUME[0]), BAD, "shape is [3 5 4], expected (depth, height"),
    "wrong channels": (
        segment(volume=VOLUME[..., :3]),
        BAD,
        "shape is [2 3 5 3], expected (depth, height",
    ),
    "empty": (segment(volume=VOLUME[:0]), BAD, "it holds no voxel"),
    "NaN": (segment(volume=with_value(np.nan)), BAD, "NaN or infinite"),
    "infinity": (segment(volume=with_value(-np.inf)), BAD, "NaN or infinite"),
    "wrong spacing": (segment(spacing=np.float32([1, -1, 1])), BAD, "spacing is"),
    "two spacings": (segment(spacing=np.float32([1, 1])), BAD, "expected (3,)"),
    "unknown input": (segment(colour=np.float32(1)), BAD, "colour"),
    "no spacing": ({k: v for k, v in segment().items() if k != "spacing"}, BAD, "spacing"),
}
BYTES = {
    "wrong channels": (in_bytes(shape=np.int32([2, 3, 4, 5])), BAD, "shape is [2 3 4 5], expected"),
    "wrong rank": (in_bytes(shape=np.int32([2, 3, 20])), BAD, "expected 4 value(s)"),
    "empty": (in_bytes(shape=np.int32([2, 0, 5, 4])), BAD, "it holds no voxel"),
    "negative": (in_bytes(shape=np.int32([-2, -3, 5, 4])), BAD, "shape is [-2 -3 5 4]"),
    "gigantic": (in_bytes(shape=np.int32([2**30, 2**30, 2**30, 4])), LARGE, "MiB are taken"),
    "truncated": (in_bytes(data_bytes=INT16[:-2]), BAD, "238 bytes"),
    "other dtype": (in_bytes(dtype=b"int32"), BAD, "expected float16, int16, float32"),
    "compression": (in_bytes(compression=b"zstd"), BAD, "zstd, expected nothing, gzip"),
    "garbage gzip": (in_bytes(data_bytes=INT16, compression=GZIP), BAD, "as gzip"),
    "cut gzip": (
        in_bytes(data_bytes=gzip.compress(INT16)[:-9], compression=GZIP),
        BAD,
        "cut",
    ),
    "gzip bomb": (in_bytes(data_bytes=BOMB, compression=GZIP), BAD, "more than the 480 bytes"),
    "short gzip": (
        in_bytes(data_bytes=gzip.compress(INT16[:-2]), compression=GZIP),
        BAD,
        "238 bytes",
    ),
    "NaN": (
        in_bytes(data_bytes=with_value(np.nan).astype("<f4").tobytes(), dtype=b"float32"),
        BAD,
        "NaN or infinite",
    ),
}
CASES = [
    pytest.param(signature, *case, id=f"{signature}-{name}")
    for signature, cases in (("segment", SEGMENT), ("segment_bytes", BYTES))
    for name, case in cases.items()
]


def json_value(name: str, value):
    if name == "data_bytes":
        return {"b64": base64.b64encode(value).decode()}
    return value.decode() if isinstance(value, bytes) else value.tolist()


@pytest.fixture(scope="module")
def goes_on(server, stub):
    """A good request is answered after all of this, and memory did not grow by what was claimed."""
    process = psutil.Process(server.process.pid)
    stub.Predict(predict_request("segment", **segment()), timeout=20)
    before = process.memory_info().rss
    yield
    labels = stub.Predict(predict_request("segment", **segment()), timeout=20).outputs["labels"]
    assert len(labels.tensor_content) == 30
    assert process.memory_info().rss - before < 200 * MIB
    assert not any("Traceback" in line for line in server.lines), server.lines


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.usefixtures("goes_on")
@pytest.mark.parametrize(("signature", "inputs", "code", "sentence"), CASES)
def test_over_both_protocols(server, stub, signature, inputs, code, sentence):
    error = refused(lambda: stub.Predict(predict_request(signature, **inputs), timeout=20))
    assert error.code() == code, error
    assert sentence in error.details()
    body = {
        "signature_name": signature,
        "inputs": {name: json_value(name, value) for name, value in inputs.items()},
    }
    status, text = http(server, "/v1/models/kerasseg:predict", body)
    assert status == HTTP[code], text
    if signature == "segment" and "no voxel" in sentence:
        sentence = "shape is [0], expected"  # an empty JSON list has one axis only
    assert sentence in json.loads(text)["error"]


@pytest.mark.usefixtures("goes_on")
def test_grpc_alone(server, stub, channel):
    double = predict_request("segment", **segment(volume=VOLUME.astype(np.float64)))
    error = refused(lambda: stub.Predict(double, timeout=20))
    assert error.code() == BAD and "volume is float64, expected float32" in error.details()
    claims = predict_request("segment", **segment(volume=np.ones((1, 1, 1, 1), np.float32)))
    for dim in claims.inputs["volume"].tensor_shape.dim:
        dim.size = 10**4
    claims.inputs["volume"].ClearField("tensor_content")
    claims.inputs["volume"].float_val.append(1.0)
    error = refused(lambda: stub.Predict(claims, timeout=20))
    assert error.code() == LARGE and "inputs claim" in error.details()
    large = predict_request("segment", **segment(volume=np.zeros((9, 256, 256, 4), np.float32)))
    error = refused(lambda: stub.Predict(large, timeout=20))
    assert error.code() == LARGE and "larger than max" in error.details()
    for changes, sentence in (
        ({"name": "other"}, "There is no model 'other'; there is kerasseg."),
        ({"version": 7}, "version 7 of the model kerasseg is not served: version 1 is."),
        ({"label": "stable"}, "no version labels"),
    ):
        request = predict_request("segment", changes.get("version"), **segment())
        request.model_spec.name = changes.get("name", "kerasseg")
        if "label" in changes:
            request.model_spec.version_label = changes["label"]
        error = refused(lambda request=request: stub.Predict(request, timeout=20))
        assert error.code() == CODES.NOT_FOUND and sentence in error.details()
    error = refused(lambda: stub.Predict(predict_request("segmen", **segment()), timeout=20))
    assert error.code() == BAD and "there are metadata, segment" in error.details()
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "other"
    services = model_service_pb2_grpc.ModelServiceStub(channel)
    assert refused(lambda: services.GetModelStatus(status)).code() == CODES.NOT_FOUND
    error = refused(lambda: stub.Classify(ClassificationRequest(), timeout=20))
    assert error.code() == CODES.UNIMPLEMENTED


@pytest.mark.usefixtures("goes_on")
@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "no JSON"),
        (b'{"inputs": [1, 2', 400, "no JSON"),
        (b"[1]", 400, "no JSON object"),
        (b"[" * 200_000, 400, "no JSON"),
        (b'{"inputs":' + b"[" * 600_000 + b"]" * 600_000 + b"}", 413, "lists"),
        (b'{"inputs":[' + b"0," * 2_200_000 + b"0]}", 413, "values"),
        (b'{"inputs": 1, "instances": [1]}', 400, "either inputs"),
        (b'{"instances": 1}', 400, "instances is no list"),
        (b'{"instances": []}', 400, "instances is no list, or empty"),
        (b'{"inputs": [[1, 2], [3]]}', 400, "no regular array"),
        (b'{"inputs": [["a"]]}', 400, "no float32"),
        (b'{"inputs": [1], "input": 2}', 400, "has input, which nothing reads"),
        (b'{"signature_name": "segment", "inputs": [1]}', 400, "Values without a name"),
        (b'{"signature_name": "segment", "inputs": {"colour": 1}}', 400, "no input colour"),
        (b'{"signature_name": 7, "inputs": 1}', 400, "signature_name is no string"),
        (b'{"signature_name": "metadata", "inputs": 7}', 400, "request is no string"),
        (b'{"signature_name": "metadata", "inputs": {"b64": "?"}}', 400, "no base64"),
        (b'{"signature_name": "metadata", "instances": ["a", "b"]}', 400, "expected ()"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_rest_alone(server, body, status, sentence):
    found, text = http(server, "/v1/models/kerasseg:predict", body)
    assert (found, sentence in json.loads(text)["error"]) == (status, True), text


@pytest.mark.usefixtures("goes_on")
def test_http_itself(server):
    predict = "/v1/models/kerasseg:predict"
    connection = HTTPConnection("127.0.0.1", server.rest, timeout=20)
    connection.putrequest("POST", predict)
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413 and "1099511627776 bytes" in json.loads(response.read())["error"]
    connection.close()
    for headers, body, status in (
        ({"Content-Encoding": "gzip"}, BOMB, 413),
        ({"Content-Encoding": "gzip"}, b"garbage", 400),
        ({"Content-Encoding": "br"}, b"{}", 400),
    ):
        found, text = http(server, predict, body, headers.items())
        assert found == status and json.loads(text)["error"]
    for path, status in (
        ("/v1/models/other", 404),
        ("/v1/models/kerasseg/versions/7", 404),
        ("/v1/models/kerasseg/versions/7/metadata", 404),
        ("/v1/models/kerasseg/versions/x", 400),
        ("/v2", 404),
        (predict, 404),
    ):
        found, text = http(server, path)
        assert found == status and json.loads(text)["error"], path
    assert http(server, "/v1/models/other:predict", b"{")[0] == 404, "not parsed for no model"
    chunks = (b"x" * MIB for _ in range(20))
    connection = HTTPConnection("127.0.0.1", server.rest, timeout=20)
    try:
        connection.request("POST", predict, chunks, encode_chunked=True)
        assert connection.getresponse().status == 413
    except OSError:
        pass  # hung up on, in the middle of what was too much
    finally:
        connection.close()


@pytest.mark.usefixtures("goes_on")
def test_garbage_in_place_of_a_protocol(server):
    for port in (server.grpc, server.rest):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(bytes(range(256)) * 20)
            time.sleep(0.1)
