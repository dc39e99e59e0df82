"""The REST protocol with KServe 0.21 at the other end: our client and its server, and vice versa.

KServe needs older packages than TensorFlow does, so it has an environment of its own, which is made
once and kept: ~/.cache/kerasseg/kserve-0.21.0-3.11 or the like.
"""

import json
import os
import socket
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_model import expected_label, expected_probabilities
from kerasseg.serving.client import Client
from kerasseg.serving.client_transport import ServerError
from tests.own_environment import KSERVE, own_environment

SCRIPT = Path(__file__).with_name("kserve_server.py")


@pytest.fixture(scope="module")
def kserve_python() -> Path:
    """The Python of KServe's environment; skips where it cannot be installed."""
    return own_environment(KSERVE)


@pytest.fixture(scope="module")
def kserve(kserve_python, models, tmp_path_factory) -> int:
    """The port of a KServe server of the small model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    packages = sysconfig.get_paths()["purelib"]
    command = [kserve_python, SCRIPT, models / "kerasseg" / "1", str(port), packages]
    log = tmp_path_factory.mktemp("kserve") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/kerasseg") as said:
                    assert json.loads(said.read()) == {"name": "kerasseg", "ready": True}
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("probabilities", [False, True])
def test_our_client_and_kserves_server(kserve, volume, probabilities):
    with Client(
        f"127.0.0.1:{kserve}", rest=True, probabilities=probabilities, compression="gzip"
    ) as client:
        prediction = client.predict(volume, spacing=(1, 2, 3))
        answer = client.call(
            "segment",
            {"volume": volume[:3], "spacing": np.ones(3), "probabilities": np.array(False)},
        )
    own = prediction.own_label({0: 0, 1: 1, 2: 2, 3: 4})
    assert np.array_equal(own, expected_label(volume))
    assert np.array_equal(answer["labels"], expected_label(volume[:3]))
    if probabilities:
        assert np.allclose(prediction.probabilities, expected_probabilities(volume), atol=1e-3)
    with (
        Client(f"127.0.0.1:{kserve}", "other", rest=True, retries=0) as client,
        pytest.raises(ServerError, match=r"HTTP 404.*other"),
    ):
        client.predict(volume)


def test_kserves_client_and_our_server(kserve_python, server):
    done = subprocess.run(
        [kserve_python, SCRIPT, "ask", f"http://127.0.0.1:{server.rest}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    maps = np.array(json.loads(done.stdout.strip().splitlines()[-1]))
    assert np.allclose(
        maps, expected_probabilities(np.float32([[[[[0, 100, -100, 5]]]]])), atol=1e-6
    )
