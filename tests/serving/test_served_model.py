"""Versions come and go; one worker, a bounded queue. Models are made up here."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from kerasseg.serving.server import models as module
from kerasseg.serving.server.grpc import status_response
from kerasseg.serving.server.limits import Limits, Reason, Refusal
from kerasseg.serving.server.models import Models, WorkQueue, find_versions, wait


class Loaded:
    """Fails, or waits, if its file says so."""

    gate = threading.Event()

    def __init__(self, name, version, folder, limits):
        text = (folder / "saved_model.pb").read_text()
        if text == "broken":
            raise OSError("no such variables\nand more")
        if text == "lost":
            raise OSError(f"no variables at {folder}/variables.index: see {folder}/variables")
        if text == "slow":
            self.gate.wait(20)
        if text == "cold":
            raise Refusal(Reason.BAD_INPUT, "volume is empty")
        self.version = version


def put(root: Path, version: int, text: str = "good", name: str = "net") -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_text(text)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def models(tmp_path, said, monkeypatch) -> Models:
    monkeypatch.setattr(module.gc, "collect", lambda: 0)  # a second, with TensorFlow in memory
    return Models(tmp_path, Limits(queue=2), Loaded, said.append)


def states(models: Models) -> dict[int, str]:
    return {version: s.state for version, s in models.model("net").statuses.items()}


def test_the_newest_answers_and_the_old_one_stays_while_it_is_used(models, tmp_path, said):
    put(tmp_path, 9)
    models.update()
    put(tmp_path, 10)
    held = models.model("net").get(None)
    models.update()
    assert held.version == 9 and models.model("net").get(None).version == 10
    assert states(models) == {9: "UNLOADING", 10: "AVAILABLE"}
    del held
    models.update()
    assert states(models) == {9: "END", 10: "AVAILABLE"}
    assert said[-1] == "net: version 9 is unloaded."
    with pytest.raises(Refusal, match="version 10 is") as caught:
        models.model("net").get(9)
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_broken_version_is_told_once_and_tried_again_when_it_changes(models, tmp_path, said):
    put(tmp_path, 1)
    models.update()
    put(tmp_path, 2, "broken")
    models.update()
    models.update()
    assert models.model("net").version == 1
    told = [line for line in said if "cannot be loaded" in line]
    reason = "OSError: no such variables"
    assert told == [f"net: version 2 cannot be loaded, version 1 goes on: {reason}"]
    assert models.model("net").statuses[2].error == reason
    put(tmp_path, 2, "well again")
    models.update()
    assert models.model("net").version == 2
    put(tmp_path, 3, "cold")
    models.update()
    assert "warm-up request was refused: volume is empty" in said[-1]


def test_an_older_version_comes_back_when_the_new_one_is_taken_away(models, tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    models.update()
    assert models.model("net").version == 2
    (tmp_path / "net" / "2" / "saved_model.pb").unlink()
    models.update()
    assert models.model("net").version == 1
    (tmp_path / "net" / "1" / "saved_model.pb").unlink()
    models.update()
    assert states(models) == {1: "END", 2: "END"} and not models.ready
    with pytest.raises(Refusal, match="net has no version any more") as caught:
        models.model("net").get(None)
    assert caught.value.reason is Reason.NOT_FOUND
    put(tmp_path, 3)
    models.update()
    assert models.model("net").get(None).version == 3 and models.ready


def test_a_model_whose_folder_is_gone_does_not_make_the_others_unready(models, tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 1, name="other")
    models.update()
    shutil.rmtree(tmp_path / "net")
    models.update()
    assert models.ready and states(models) == {1: "END"}


def test_a_folder_that_cannot_be_looked_into_changes_nothing(models, tmp_path, monkeypatch):
    put(tmp_path, 1)
    models.update()
    monkeypatch.setattr(module.os, "listdir", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        models.update()
    assert models.model("net").version == 1 and models.ready


def test_numbers_that_tensorflow_serving_does_not_know_are_no_versions(models, tmp_path):
    for name in ("1", "9" * 20, "9223372036854775808", "٣", "1.0", "²", "-2"):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "saved_model.pb").write_text("good")
    models.update()
    assert models.model("net").version == 1 and states(models) == {1: "AVAILABLE"}
    put(tmp_path, 2**63 - 1)
    models.update()
    answer = status_response(models, "net", None)
    assert [each.version for each in answer.model_version_status] == [2**63 - 1, 1]
    put(tmp_path / "zero", 0)
    assert find_versions(tmp_path / "zero" / "net") == {0: tmp_path / "zero" / "net" / "0"}


def test_a_slow_model_holds_up_no_other(models, tmp_path):
    put(tmp_path, 1, "slow", name="a-slow")
    put(tmp_path, 1)
    models.find()
    watching = threading.Thread(target=models.watch, args=(0.01,))
    watching.start()
    try:
        for version in (1, 2):
            put(tmp_path, version)
            until = time.monotonic() + 20
            while models.model("net").version != version and time.monotonic() < until:
                time.sleep(0.005)
            assert models.model("net").version == version
        with pytest.raises(Refusal, match="is being loaded") as caught:
            models.model("a-slow").get(None)
        assert caught.value.reason is Reason.UNAVAILABLE and not models.ready
        assert watching.is_alive(), "who starts the server waits for all that is there"
    finally:
        Loaded.gate.set()
        watching.join(20)
    assert models.model("a-slow").version == 1 and models.ready
    models.close(5)


def test_a_status_has_no_path_of_the_server(models, tmp_path, said):
    put(tmp_path, 1, "lost")
    models.update()
    error = models.model("net").statuses[1].error
    assert error == "OSError: no variables at variables.index: see variables"
    assert str(tmp_path) in said[-1], "whoever runs the server is told all"
    with pytest.raises(Refusal) as caught:
        models.model("net").get(None)
    assert str(tmp_path) not in caught.value.sentence


def test_ready_is_said_of_all_models_only(models, tmp_path):
    models.update()
    assert not models.ready
    put(tmp_path, 1, "broken")
    models.update()
    assert not models.ready
    with pytest.raises(Refusal, match="No version of the model net could be loaded"):
        models.model("net").get(None)
    with pytest.raises(Refusal, match="There is no model 'nut'; there is net"):
        models.model("nut")
    put(tmp_path, 2)
    models.update()
    assert models.ready


def test_a_full_queue_refuses_and_time_runs_out():
    work, gate, done = WorkQueue("net", 2), threading.Event(), []
    running = threading.Event()
    first = work.put(lambda: running.set() or gate.wait())
    assert running.wait(20)
    second, third = work.put(lambda: done.append(2)), work.put(lambda: done.append(3))
    with pytest.raises(Refusal, match="2 requests of the model net wait") as caught:
        work.put(lambda: None)
    assert caught.value.reason is Reason.UNAVAILABLE
    with pytest.raises(Refusal) as caught:
        wait(second, 0.05)
    assert caught.value.reason is Reason.TOO_LATE
    assert work.length == 1, "who waits no longer makes room"
    gate.set()
    wait(third, 5)
    assert wait(first, 5) is True and done == [3], "who waits no longer is not computed"


def test_an_error_is_the_tasks_own_and_the_worker_goes_on():
    work = WorkQueue("net", 2)

    def fail():
        raise TimeoutError("of the task itself")

    with pytest.raises(TimeoutError, match="of the task itself"):
        wait(work.put(fail), 5)
    assert wait(work.put(lambda: 7), 5) == 7
    slow = work.put(lambda: time.sleep(0.2) or 8)
    work.stop(5)
    assert slow.result(0) == 8, "what waits is finished"
    with pytest.raises(Refusal, match="being stopped"):
        work.put(lambda: None)
