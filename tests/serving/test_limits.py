"""Many clients at once, requests that take too long, and a full queue."""

import threading
import time

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from benchmarks.serving_load import make_load
from benchmarks.serving_model import write_model
from benchmarks.serving_process import serving
from kerasseg.serving.client import Client
from kerasseg.serving.client_transport import ServerError
from tests.program import start_program
from tests.serving.test_protocols import http, predict_request


def test_eight_clients_at_once(server):
    load = make_load(server.grpc, server.rest, server.process.pid, 4)
    assert not load.errors and load.requests > 8, load.errors[:1]
    assert load.growth() < 64, load.memory


def test_deadline_and_queue(tmp_path, volume):
    write_model(tmp_path / "kerasseg" / "1", 100.0, 9.0)
    inputs = {"volume": volume, "spacing": [1.0, 1.0, 1.0], "probabilities": False}
    body = {
        "signature_name": "segment",
        "inputs": {**inputs, "volume": volume.tolist()},
    }
    with (
        serving(tmp_path, "--queue", "1", "--timeout", "2", start=start_program) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(predict_request("segment", **inputs), timeout=30)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "time for this request was over" in caught.value.details()
        assert time.monotonic() - started < 6
        status, text = http(server, "/v1/models/kerasseg:predict", body)
        assert status == 504 and b"time for this request was over" in text
        codes = []

        def ask() -> None:
            try:
                stub.Predict(predict_request("segment", **inputs), timeout=30)
            except grpc.RpcError as error:
                codes.append(error.code().name)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        status, text = http(server, "/v1/models/kerasseg:predict", body)
        assert status == 503 and b"wait already" in text
        with (
            Client(f"127.0.0.1:{server.grpc}", retries=0) as client,
            pytest.raises(ServerError, match="wait already"),
        ):
            client.call("metadata", {"request": ""})
        for thread in threads:
            thread.join(30)
        assert set(codes) == {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert http(server, "/healthz")[0] == 200
