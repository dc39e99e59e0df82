"""What is chosen on one device, on two, and without what was asked for; what machines tell."""

import json
import math
import re
import signal
import socket
import time

import keras
import pytest
import tensorflow as tf

from kerasseg.config.load import load_experiment
from kerasseg.config.training import TrainingSettings
from kerasseg.errors import UserError
from kerasseg.training import devices as module
from kerasseg.training.callbacks import StopTogether
from kerasseg.training.devices import choose_devices
from kerasseg.training.user_classes import user_callbacks
from tests.program import Program, run_program
from tests.training.worker_processes import free_ports, run_workers

TWO = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'


def settings(**chosen):
    return TrainingSettings(**chosen)


@pytest.mark.parametrize("chosen", [{}, {"devices": "all"}, {"devices": "cpu", "batch_size": 3}])
def test_one_cpu_needs_no_strategy(chosen):
    devices = choose_devices(settings(**chosen))
    assert devices.description == "no strategy (one CPU)" and devices.replicas == 1
    assert devices.chief and (devices.worker, devices.workers) == (0, 1)
    images = tf.data.Dataset.range(3)
    assert devices.distribute(images, 1) is images
    assert devices.chief_first(lambda: 5) == 5
    assert devices.broadcast(lambda: {"a": 1}, ["a"]) == {"a": 1}
    assert devices.any_worker(True) and not devices.any_worker(False)
    devices.check_same("config", "anything")


@pytest.mark.parametrize(("gpus", "here"), [(0, "no GPU"), (2, r"2 GPU\(s\), numbered from 0")])
def test_a_gpu_that_is_not_there(monkeypatch, gpus, here):
    found = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(gpus)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found)
    with pytest.raises(
        UserError, match=f"training.devices=gpu:3, but TensorFlow sees {here} .*devices=auto"
    ):
        choose_devices(settings(devices="gpu:3"))


@pytest.mark.parametrize(("chosen", "left"), [("gpu:1", [1]), ("cpu", []), ("all", None)])
def test_other_gpus_are_hidden(monkeypatch, chosen, left):
    found = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    shown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: shown.append(given))
    monkeypatch.setattr(
        module, "_choose_on_this_machine", lambda _, gpus: pytest.fail(str(len(gpus)))
    )
    count = 2 if left is None else len(left)
    with pytest.raises(pytest.fail.Exception, match=str(count)):
        choose_devices(settings(devices=chosen))
    assert shown == ([] if left is None else [([found[i] for i in left], "GPU")])


def test_devices_can_be_hidden_only_at_first(monkeypatch):
    found = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]

    def refuse(*given):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found)
    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(UserError, match="devices=cpu cannot be set any more"):
        choose_devices(settings(devices="cpu"))


def test_several_workers_must_be_named(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match=r"strategy=multi_worker, but .* TF_CONFIG names no"):
        choose_devices(settings(strategy="multi_worker"))


def test_without_a_strategy_tf_config_is_not_looked_at_further(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", TWO)
    assert choose_devices(settings(strategy="none")).workers == 1


def test_two_devices():
    """In a process of its own, where TensorFlow has two logical CPUs."""
    choices = {
        "auto": {"batch_size": 4},
        "mirrored": {"batch_size": 4, "strategy": "mirrored"},
        "odd": {"batch_size": 3},
        "small": {"batch_size": 1},
        "none": {"batch_size": 4, "strategy": "none"},
        "xla": {"batch_size": 4, "jit_compile": True},
    }
    ran = run_program(["-m", "tests.training.two_devices", json.dumps(list(choices.values()))])
    ran.check_returncode()
    found = dict(zip(choices, json.loads(ran.stdout), strict=True))
    for name in ("auto", "mirrored"):
        assert found[name]["description"] == "MirroredStrategy (2 CPUs)"
        assert found[name]["replicas"] == 2
        assert found[name]["parts"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert "batch_size 3 is over all devices" in found["odd"] and "use 2 or 4." in found["odd"]
    assert "by 2 of them: use 2." in found["small"]
    assert "strategy=none, but 2 CPUs" in found["none"]
    assert "jit_compile=true does not work on 2 devices" in found["xla"]


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_xla_with_several_devices_is_refused_when_the_config_is_read(strategy):
    with pytest.raises(UserError, match=f"jit_compile=true does not work with strategy={strategy}"):
        load_experiment(None, ["training.jit_compile=true", f"training.strategy={strategy}"])


def test_what_two_workers_tell_each_other(tmp_path):
    """The last is that worker 1 ends and the chief says so instead of waiting for it."""
    command = ["-m", "tests.training.two_workers", str(tmp_path / "made")]
    ended = run_workers(tmp_path, [command] * 2)
    for index, worker in enumerate(ended):
        assert worker.code == 0, worker.stderr
        lines = worker.stdout.splitlines()
        assert lines[0].startswith("Waiting for all 2 workers of TF_CONFIG; this is worker ")
        told = json.loads(lines[1])
        assert told["worker"] == index and told["replicas"] == 2
        assert told["description"] == "MultiWorkerMirroredStrategy (TF_CONFIG names 2 workers)"
        assert told["orders"] == [False, True, True]
        assert told["scores"]["dice"] == 1 / 3 and math.isnan(told["scores"]["no"])
        assert told["found"] == (index == 1), "the chief goes first"
        for name in ("short", "long"):
            assert "TF_CONFIG do not have the same config: worker 1 and the chief" in told[name]
            assert "Compare it by hand. Start all of them" in told[name]
        assert f"here (worker {index}) it is 'batch: {2 + 2 * index}'" in told["short"]
        assert re.search(rf"here \(worker {index}\) it is one of hash \w{{12}}\.", told["long"])
    lost = json.loads(ended[0].stdout.splitlines()[2])
    assert lost.startswith("Lost worker 1 (localhost:") and lost.endswith("with --resume.")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.all_only), signal.SIGINT]
)
def test_who_waits_for_the_others_can_be_stopped(number):
    """TensorFlow alone would wait in C++, where neither signal ends it."""
    first, second = free_ports(2)
    workers = {"worker": [f"localhost:{first}", f"localhost:{second}"]}
    config = json.dumps({"cluster": workers, "task": {"type": "worker", "index": 0}})
    process = Program(["-m", "tests.training.two_workers"], env={"TF_CONFIG": config})
    try:
        while "this is worker 0 (the chief)" not in process.stdout:
            assert process.poll() is None, process.stderr
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(number)
        code = process.wait(600)  # a busy machine takes its time
        # Forked, a process ends with 1 where a shell's ends by the signal.
        assert code == -number or (code == 1 and "KeyboardInterrupt" in process.stderr)
    finally:
        process.kill()


def test_a_callback_that_stops_one_machine_stops_all():
    heard = []

    def any_worker(here):
        heard.append(here)
        return True

    callback = StopTogether(any_worker)
    callback.set_model(keras.Model())
    callback.model.stop_training = False
    callback.on_epoch_end(0)
    assert heard == [False] and callback.model.stop_training is True


def test_a_backup_of_one_machine_is_refused():
    backup = "training.callbacks=[{keras.callbacks.BackupAndRestore: {backup_dir: backup}}]"
    experiment = load_experiment(None, [backup])
    assert len(user_callbacks(experiment, writing=True)) == 1
    with pytest.raises(UserError, match="BackupAndRestore would take one machine back"):
        user_callbacks(experiment, writing=True, workers=2)


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", TWO.replace("a:1", f"localhost:{port}"))
        with pytest.raises(UserError, match=f"cannot listen at localhost:{port} .Address already"):
            choose_devices(settings())
