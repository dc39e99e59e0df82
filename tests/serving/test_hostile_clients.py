"""Clients that claim memory, stall, hang up or are ambiguous; the others are answered meanwhile.

The server runs in this process, with a model without TensorFlow and limits of fractions of seconds.
"""

import json
import logging
import socket
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from kerasseg.serving.protocol import from_proto, read_predict_request, serving_apis, to_proto
from kerasseg.serving.server import connections
from kerasseg.serving.server.limits import MIB, Limits, Refusal, Spec, bad_input, check_inputs
from kerasseg.serving.server.models import Models
from kerasseg.serving.server.serve import Address, Servers

APIS = serving_apis()
LIMITS = Limits(
    request_bytes=2 * MIB,
    volume_bytes=8 * MIB,
    queue=2,
    seconds=120,
    silent_seconds=0.6,
    grace_seconds=0.1,
    connections=20,
)
PATIENCE = 60
"""Seconds for what takes milliseconds on an idle machine."""
PREDICT = "/v1/models/sum:predict"
GOOD = json.dumps({"inputs": {"x": [1.0, 2.0], "y": [10.0, 20.0]}}).encode()


class Sum:
    """A version of a model that adds x to y; a negative x waits for `gate`."""

    gate = threading.Event()
    running = threading.Event()

    def __init__(self, name: str, version: int, folder: Path, limits: Limits) -> None:
        self.version, self.definitions = version, {}
        self.inputs = {"serving_default": {name: Spec("float32", (None,)) for name in "xy"}}

    def specs(self, signature):
        if signature not in self.inputs:
            raise bad_input("there is no such signature")
        return self.inputs[signature]

    def check(self, signature, inputs):
        check_inputs(inputs, self.specs(signature))

    def run(self, signature, inputs):
        if inputs["x"][0] < 0:
            self.running.set()
            self.gate.wait(PATIENCE)
        return {"z": inputs["x"] + inputs["y"]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    (root / "sum" / "1").mkdir(parents=True)
    (root / "sum" / "1" / "saved_model.pb").touch()
    models = Models(root, LIMITS, Sum, lambda line: None)
    with Servers(models, Address(grpc_port=0, rest_port=0)) as running:
        models.update()
        yield running


@pytest.fixture(scope="module")
def channel(servers):
    with grpc.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog):
    """A client's mistake is no news for the log, whatever it is."""
    yield
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def connect(servers, data: bytes = b"") -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", servers.rest_port), timeout=PATIENCE)
    raw.sendall(data)
    return raw


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def post(body: bytes, *headers: str) -> bytes:
    return head("POST", PREDICT, f"Content-Length: {len(body)}", *headers) + body


def answer(raw: socket.socket) -> str:
    """All that comes until the server hangs up, or the end of a JSON object."""
    text = b""
    while not text.endswith(b"}"):
        try:
            part = raw.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        text += part
    return text.decode()


def others_are_answered(servers, channel) -> None:
    for request, expected in (
        (head("GET", "/healthz"), "alive"),
        (head("GET", "/v1/models/sum"), "AVAILABLE"),
        (post(GOOD), "[11.0, 22.0]"),
    ):
        with connect(servers, request) as raw:
            assert expected in answer(raw)
    status = APIS.get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "sum"
    found = APIS.model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        status, timeout=PATIENCE
    )
    assert [each.version for each in found.model_version_status] == [1]
    assert predict(channel, x=[1, 2], y=[10, 20]).tolist() == [11, 22]


def predict(channel, **inputs) -> np.ndarray:
    stub = APIS.prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(request_of(**inputs), timeout=PATIENCE)
    return from_proto(response.outputs["z"])


def request_of(**inputs):
    request = APIS.predict_pb2.PredictRequest()
    request.model_spec.name = "sum"
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(to_proto(np.float32(value)))
    return request


def claim(request, name: str, size: int) -> None:
    """Let an input hold one value and claim more of them."""
    request.inputs[name].CopyFrom(to_proto(np.float32([1])))
    request.inputs[name].tensor_shape.dim[0].size = size
    request.inputs[name].ClearField("tensor_content")
    request.inputs[name].float_val.append(1.0)


def test_a_few_bytes_do_not_become_gigabytes(servers, channel, monkeypatch):
    empty = np.empty

    def unfold(count, *dtype):
        assert count < 10, "an array was made"
        return empty(count, *dtype)

    monkeypatch.setattr("numpy.empty", unfold)
    request = request_of()
    for name in "xy":
        claim(request, name, 2**20 + 1)  # 4 MiB and a bit each, together more than 8 MiB
    assert request.ByteSize() < 122
    assert "claim 8 MiB; at most 8 MiB" in refusal(channel, request, "RESOURCE_EXHAUSTED")
    claim(request, "x", 2**19)
    claim(request, "y", 1)
    assert "a tensor of this size is sent whole" in refusal(channel, request, "INVALID_ARGUMENT")
    for index in range(50):
        claim(request, f"extra{index}", 2**20)
    message = refusal(channel, request, "INVALID_ARGUMENT")
    assert "the signature takes x, y: leave out extra0" in message and "30 more" in message
    request.model_spec.name = "n" * 30_000
    assert "There is no model" in refusal(channel, request, "NOT_FOUND")


def refusal(channel, request, code: str) -> str:
    stub = APIS.prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=PATIENCE)
    assert caught.value.code().name == code, caught.value
    return caught.value.details()


@pytest.mark.parametrize("kind", ["axes", "strings", "integers", "inputs", "filter"])
def test_a_message_of_many_small_parts_is_refused_before_it_is_parsed(kind):
    request = request_of(x=[1])
    tensor = request.inputs["x"]
    if kind == "axes":
        tensor.tensor_shape.dim.extend([tensor.tensor_shape.dim[0].__class__()] * 40_000)
    elif kind == "strings":
        tensor.string_val.extend([b""] * 40_000)
    elif kind == "integers":
        tensor.int64_val.extend([1] * 70_000)
    elif kind == "inputs":
        for index in range(6_000):
            request.inputs[str(index)].dtype = 1
    else:
        request.output_filter.extend([""] * 40_000)
    with pytest.raises(OverflowError, match="send them as tensor_content"):
        read_predict_request(request.SerializeToString())


def test_a_message_that_is_none(channel):
    good = request_of(x=np.zeros(4, np.float32), y=np.zeros(4, np.float32)).SerializeToString()
    assert read_predict_request(good).inputs["x"].tensor_content == bytes(16)
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for data in (good[:-3], b"\x0b\x0c", b"\xff" * 30, b"\x12\xff\xff\xff\xff\x0f"):
        with pytest.raises(ValueError, match="is no PredictRequest"):
            read_predict_request(data)
        with pytest.raises(grpc.RpcError, match="is no PredictRequest"):
            call(data, timeout=PATIENCE)
    status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
    with pytest.raises(grpc.RpcError, match="not of this method"):
        status(b"\xff" * 30, timeout=PATIENCE)
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(2**20), timeout=PATIENCE, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED, "a bomb is not unfolded"


def test_calls_without_a_message_stop_nobody(servers, channel):
    end, calls = threading.Event(), []

    def nothing():
        end.wait(PATIENCE)
        yield b""

    with grpc.insecure_channel(
        f"127.0.0.1:{servers.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
    ) as other:
        for method in ("PredictionService/Predict", "ModelService/GetModelStatus"):
            silent = other.stream_unary(f"/tensorflow.serving.{method}")
            calls += [silent.future(nothing(), timeout=PATIENCE) for _ in range(40)]
        others_are_answered(servers, channel)
        # On a busy machine the limit of silence may end them before.
        ended = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert {call.code().name for call in calls if call.done()} <= ended
        end.set()
        assert {call.code().name for call in calls} <= {*ended, "NOT_FOUND"}
    with pytest.raises(grpc.RpcError, match="ended without a message"):
        channel.stream_unary("/tensorflow.serving.PredictionService/Predict")(iter(()))


def test_stalled_bodies_stop_nobody(servers, channel):
    stalled = [connect(servers, post(GOOD)[:-4]) for _ in range(16)]
    others_are_answered(servers, channel)
    for raw in stalled:
        assert "504" in answer(raw).splitlines()[0]
        raw.close()


def test_bodies_that_fill_the_memory_make_room(servers, channel):
    most = LIMITS.at_once * LIMITS.request_bytes
    part = post(b" " * LIMITS.request_bytes)[:-1]
    stalled = [connect(servers, part) for _ in range(most // len(part) + 3)]
    found = [answer(raw).splitlines()[0] for raw in stalled]
    assert any("429" in line for line in found), "the one that was silent for longest"
    assert all("429" in line or "504" in line for line in found)
    for raw in stalled:
        raw.close()
    others_are_answered(servers, channel)


def test_idle_sockets_make_room_and_are_closed(servers, channel):
    idle = [connect(servers) for _ in range(3 * LIMITS.connections)]
    others_are_answered(servers, channel)
    for raw in idle:
        assert answer(raw) == ""
        raw.close()


def test_a_head_must_come_whole(servers):
    with connect(servers, b"GET /healthz HTTP/1.1\r\n") as raw:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < PATIENCE:
                raw.sendall(b"x: y\r\n")
                time.sleep(0.05)


def test_who_does_not_read_the_answer_is_hung_up_on(servers):
    values = json.dumps({"inputs": {"x": [0.0] * 150_000, "y": [1.0] * 150_000}}).encode()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(PATIENCE)
    raw.connect(("127.0.0.1", servers.rest_port))
    with raw:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < PATIENCE:  # until the system keeps no more of them
                raw.sendall(post(values))
                time.sleep(0.05)


@pytest.mark.parametrize(
    "request_text",
    [
        post(GOOD, "Transfer-Encoding: chunked"),
        head("GET", "/healthz", "A: b", " c"),
        head("GET", "/healthz", "A: b", "\tc"),
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        post(GOOD, "Content-Length: 3"),
        b"\x16\x03\x01garbage\r\n\r\n",
    ],
    ids=["both lengths", "folded", "folded by a tab", "line feeds", "one", "two lengths", "tls"],
)
def test_what_can_be_read_in_two_ways_is_refused(servers, request_text):
    with connect(servers, request_text) as raw:
        assert answer(raw).startswith("HTTP/1.1 400")


def test_aborted_uploads_leave_no_trace_in_the_log(servers, channel):
    chunked = head("POST", PREDICT, "Transfer-Encoding: chunked")
    for data in (post(GOOD)[:-4], chunked + b"5\r\nhell", chunked + b"no number\r\n", b"GET /"):
        connect(servers, data).close()
    with connect(servers, head("POST", PREDICT, f"Content-Length: {2**40}") + b"x") as raw:
        assert "413" in answer(raw)
    others_are_answered(servers, channel)


def test_who_hangs_up_leaves_the_queue(servers, channel):
    Sum.gate.clear()
    Sum.running.clear()
    busy = json.dumps({"inputs": {"x": [-1.0], "y": [1.0]}}).encode()
    running = connect(servers, post(busy))
    assert Sum.running.wait(PATIENCE)
    for _ in range(3 * LIMITS.queue):
        gone = connect(servers, post(GOOD))
        until = time.monotonic() + PATIENCE
        while 'queue_length{model="sum"} 1' not in metrics(servers):
            assert time.monotonic() < until
        gone.close()
        while 'queue_length{model="sum"} 0' not in metrics(servers):
            assert time.monotonic() < until
    Sum.gate.set()
    assert "[0.0]" in answer(running)
    running.close()
    others_are_answered(servers, channel)


def metrics(servers) -> str:
    with connect(servers, head("GET", "/metrics", "Connection: close")) as raw:
        text = b""
        while part := raw.recv(65536):
            text += part
    return text.decode()


def test_connections_fit_the_files_that_the_process_may_open(monkeypatch):
    asked = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (256, 300))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert connections.most_connections(Limits()) == 118 and asked == [(300, 300)]
    assert connections.most_connections(Limits(connections=7)) == 7


def test_a_mistake_of_ours_is_logged_and_not_told(servers, channel, caplog, monkeypatch):
    def broken(*_):
        raise FileNotFoundError("/home/somebody/secret")

    monkeypatch.setattr(Sum, "run", broken)
    with connect(servers, post(GOOD)) as raw:
        found = answer(raw)
    assert "500" in found and "FileNotFoundError" in found and "somebody" not in found
    message = refusal(channel, request_of(x=[1], y=[2]), "INTERNAL")
    assert "FileNotFoundError" in message and "somebody" not in message
    assert len(caplog.records) == 2
    caplog.clear()


def test_refusals_of_a_signature_come_before_the_tensors(servers, channel):
    with pytest.raises(Refusal):
        Sum("sum", 1, Path(), LIMITS).specs("other")
    request = request_of(x=[1], y=[2])
    request.model_spec.signature_name = "other"
    claim(request, "x", 2**40)
    assert "no such signature" in refusal(channel, request, "INVALID_ARGUMENT")
