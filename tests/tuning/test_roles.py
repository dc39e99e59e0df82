"""Which role a process has, and on which GPUs its trials run."""

import pytest

from kerasseg.cli.train import resolve_role
from kerasseg.errors import UserError
from kerasseg.tuning.workers import assign_gpus, visible_gpus

IP, PORT, TUNER = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"


@pytest.fixture
def environment(monkeypatch):
    for name in (IP, PORT, TUNER):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_options_and_kerastuners_variables_say_the_same(environment):
    assert resolve_role(None, None, None) == (None, "", "")
    assert resolve_role("chief", "0.0.0.0:8000", None)[:2] == ("chief", "0.0.0.0:8000")
    assert resolve_role("worker", "a:1", "w") == ("worker", "a:1", "w")
    assert resolve_role("worker", "a:1", None)[2], "a worker has a name of its own"
    environment.setenv(IP, "10.0.0.1")
    environment.setenv(PORT, "8000")
    environment.setenv(TUNER, "chief")
    assert resolve_role(None, None, None)[:2] == ("chief", "10.0.0.1:8000")
    environment.setenv(TUNER, "tuner3")
    assert resolve_role(None, None, None) == ("worker", "10.0.0.1:8000", "tuner3")
    assert resolve_role("worker", "a:1", "w") == ("worker", "a:1", "w"), "options win"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("boss", "a:1", None), "--role boss: expected chief or worker"),
        (("chief", None, None), "--role chief needs --address HOST:PORT"),
        (("worker", "nohost", None), "--address nohost: expected HOST:PORT"),
        (("worker", "a:b", None), "--address a:b: expected HOST:PORT"),
        (("chief", "a:99999", None), "--address a:99999: .*ports end at 65535"),
        ((None, "a:1", None), "--address is for several machines: add --role"),
        ((None, None, "w"), "--worker is for several machines: add --role"),
        (("chief", "a:1", "w"), "--worker names a worker"),
    ],
)
def test_what_does_not_go_together_is_said(environment, arguments, words):
    with pytest.raises(UserError, match=words):
        resolve_role(*arguments)


def test_variables_that_are_not_all_there_are_said(environment):
    environment.setenv(IP, "10.0.0.1")
    with pytest.raises(UserError, match=f"{IP}=10.0.0.1 is set in your environment, but {PORT}"):
        resolve_role(None, None, None)
    environment.setenv(PORT, "8000")
    with pytest.raises(UserError, match=f"but {TUNER} is not"):
        resolve_role(None, None, None)


@pytest.mark.parametrize(
    ("devices", "parallel", "gpu", "expected"),
    [
        ("", "auto", None, [None]),
        ("-1", 2, None, [None, None]),
        ("0", "auto", None, [None]),
        ("0,1,2", "auto", None, ["0", "1", "2"]),
        ("4,7", 1, None, [None]),
        ("4,7", 3, None, ["4", "7", "4"]),
        ("4,7", "auto", 1, ["7"]),
        ("4,7", 2, 1, ["7", "7"]),
        ("4,-1,7", "auto", None, [None]),
    ],
)
def test_trials_are_placed_on_gpus(monkeypatch, devices, parallel, gpu, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert assign_gpus(parallel, gpu) == expected


def test_a_gpu_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match=r"--gpu 2: there is 2 GPU\(s\), numbered from 0 here"):
        assign_gpus("auto", 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0; echo 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert visible_gpus() == ["0", "1"]
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    with pytest.raises(UserError, match="there is no GPU here"):
        assign_gpus("auto", 0)
