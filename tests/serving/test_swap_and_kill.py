"""A new version under load, over TLS; a server that dies, and one that is stopped."""

import re
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from benchmarks.serving_model import write_model
from benchmarks.serving_process import serving
from kerasseg.errors import UserError
from kerasseg.serving.client import Client
from kerasseg.serving.client_transport import ServerError
from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.models import Models
from kerasseg.serving.server.serve import Address, Servers
from tests.program import start_program

SLOW = 2.0
"""Seconds of a slow model's request."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "pem", folder / "key"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", pem),
        ],
        check=True,
        capture_output=True,
    )
    return pem, key


def test_a_new_version_under_load_fails_nobody(models, tmp_path, volume, certificate):
    pem, key = certificate
    shutil.copytree(models / "kerasseg", tmp_path / "models" / "kerasseg")
    write_model(tmp_path / "next", 150.0)
    answers, errors, stop = [], [], threading.Event()
    old, new = (int((volume[..., 0] > threshold).sum()) for threshold in (100, 150))

    def ask(port: int, rest: bool) -> None:
        with Client(
            f"127.0.0.1:{port}", rest=rest, retries=0, deadline=30.0, tls=True, authority=pem
        ) as client:
            while not stop.is_set():
                try:
                    answers.append(int((client.predict(volume).label > 0).sum()))
                except Exception as error:
                    errors.append(str(error))
                    return

    options = ("--poll", "0.2", "--certificate", str(pem), "--key", str(key))
    with serving(tmp_path / "models", *options) as server:
        threads = [
            threading.Thread(target=ask, args=(server.rest if rest else server.grpc, rest))
            for rest in (False, True, False, True)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        broken = tmp_path / "models" / "kerasseg" / "2"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"not a model")
        line = server.wait_for("version 2 cannot be loaded", 30)
        assert "version 1 goes on" in line
        (tmp_path / "next").rename(tmp_path / "models" / "kerasseg" / "3")
        server.wait_for("version 3 answers", 30)
        server.wait_for("version 1 is unloaded", 30)
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join(30)
        with pytest.raises(ServerError, match="does not answer"):
            Client(f"127.0.0.1:{server.grpc}", retries=0, deadline=10.0).predict(volume)
        with pytest.raises(ServerError, match="--authority"):
            Client(f"127.0.0.1:{server.rest}", rest=True, retries=0, tls=True).predict(volume)
    assert not errors
    assert {old, new} == set(answers) and old != new
    assert answers[0] == old and answers[-1] == new


def test_files_that_are_no_certificate_and_key_are_refused_by_name(tmp_path, certificate):
    pem, key = certificate
    other, text = tmp_path / "other.key", tmp_path / "text.pem"
    subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
    text.write_text("no certificate")
    models = Models(tmp_path, Limits(), None, print)
    for pair in ((pem, other), (text, key)):
        with pytest.raises(UserError) as error:
            Servers(models, Address("127.0.0.1", 0, 0, *pair))
        message = str(error.value)
        assert message.startswith(f"--certificate {pair[0]}, --key {pair[1]}: they cannot be used")
        assert "give PEM files of a certificate and of its key" in message
    with Servers(models, Address("127.0.0.1", 0, 0, pem, key)) as servers:
        assert servers.grpc_port and servers.rest_port


def test_the_client_says_that_the_server_died_and_asks_again(tmp_path, volume):
    write_model(tmp_path / "kerasseg" / "1", 100.0, SLOW)
    said, result = [], []

    def ask() -> None:
        result.append(client.predict(volume))

    with serving(tmp_path, start=start_program) as server:
        client = Client(f"127.0.0.1:{server.grpc}", say=said.append, retries=8)
        assert client.metadata.target == "regions"
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(1)
        assert asking.is_alive(), "the request was to take longer"
        server.stop(signal.SIGKILL)
        until = time.monotonic() + 300
        while not said and time.monotonic() < until:
            time.sleep(0.05)
        assert re.search(
            r"127\.0\.0\.1:\d+ does not answer \(.+Trying again in 1 s \(1 of 8\)", said[0]
        )
        port = server.grpc
    with serving(tmp_path, "--grpc-port", str(port), start=start_program) as server:
        asking.join(120)
        assert np.array_equal(result[0].label > 0, volume[..., 0] > 100)
        # One runs, one waits, and SIGTERM comes: both are answered, nobody new is let in.
        late = [threading.Thread(target=ask) for _ in "ab"]
        for thread in late:
            thread.start()
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Stopping")
        with pytest.raises(ServerError, match="does not answer"):
            Client(f"127.0.0.1:{port}", retries=0).call("metadata", {"request": ""})
        for thread in late:
            thread.join(60)
        assert len(result) == 3 and server.process.wait(60) == 0
    client.close()
