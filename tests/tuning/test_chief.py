"""A chief and its workers over gRPC on this machine, with executions that are done at once."""

import signal
import socket
import threading
import time

import pytest

from kerasseg.errors import UserError
from kerasseg.tuning.distributed import ChiefClient
from kerasseg.tuning.oracles import build_oracle
from kerasseg.tuning.search import load_search, write_search
from kerasseg.tuning.trial_process import Outcome
from kerasseg.tuning.tune import tune_as_chief, tune_as_worker
from kerasseg.tuning.work import SearchStopped, Stop
from tests.tuning.searches import fake_job, make_search, records, write_files


@pytest.fixture
def address(monkeypatch):
    for name in ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
        monkeypatch.setenv(name, "")  # put back when the test is over
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Role(threading.Thread):
    """A chief or worker in a thread; `join` raises what it raised."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_role, self.error, self.result = run, None, None
        self.start()

    def run(self):
        try:
            self.result = self.run_role()
        except BaseException as error:
            self.error = error

    def join(self, timeout=60):
        super().join(timeout)
        assert not self.is_alive(), "it waits for ever"
        if self.error:
            raise self.error
        return self.result


def chief_of(search, address):
    return Role(lambda: tune_as_chief(search, address))


def worker_of(search, address, name, job=fake_job):
    return Role(lambda: tune_as_worker(search, address, name, run_job=job))


def test_two_workers_share_the_trials_of_a_chief(tmp_path, address, capfd):
    space = {
        "optimizer.name": {"choice": ["adam", "sgd"]},
        "optimizer.momentum": {"float": [0.5, 0.9], "when": {"optimizer.name": "sgd"}},
        "optimizer.learning_rate": {"float": [1.23456789e-4, 1e-2], "log": True},
        "model.features": {"choice": [[4, 6], [6, 8]]},
    }
    search = make_search(tmp_path, space, max_trials=6, baseline=True)
    together = threading.Barrier(2, timeout=30)

    def job(job, environment, stop):
        if job.experiment.run.name in ("trial_baseline", "trial_0000"):
            together.wait()  # passed if both workers are there
        return fake_job(job, environment, stop)

    chief = chief_of(search, address)
    workers = [worker_of(search, address, name, job) for name in ("one", "two")]
    for worker in workers:
        worker.join()
    assert chief.join() == search.folder / "best.yaml"
    found = records(search)
    assert [record["number"] for record in found] == list(range(7))
    assert all(record["status"] == "completed" for record in found)
    assert {record["worker"] for record in found} == {"one", "two"}
    shown = capfd.readouterr().out
    assert "\n0\n" not in shown and "\n1\n" not in shown, "KerasTuner prints a condition's value"
    assert all(f"Trial {number}/6" in shown for number in range(1, 7))


def test_hyperband_over_workers_waits_for_its_rounds(tmp_path, address):
    search = make_search(tmp_path, tuner="hyperband", epochs=4, factor=2)
    chief = chief_of(search, address)
    for worker in [worker_of(search, address, name) for name in ("one", "two")]:
        worker.join()
    chief.join()
    found = records(search)
    assert {(r["bracket"], r["round"]) for r in found} == {
        (2, 0), (2, 1), (2, 2), (1, 0), (1, 1), (0, 0)
    }  # fmt: skip
    assert all(r["status"] == "completed" for r in found)


def test_a_chief_that_no_worker_comes_to_ends_with_a_message(tmp_path, address):
    search = make_search(tmp_path, worker_timeout=2.0)
    with pytest.raises(UserError, match="No worker has been heard of for 2 seconds"):
        chief_of(search, address).join()


class Died(BaseException):
    """Stands for a worker that is killed: it says nothing more."""


def test_the_trial_of_a_lost_worker_goes_to_another(tmp_path, address, capfd, monkeypatch):
    search = make_search(tmp_path, max_trials=3, worker_timeout=2.0)

    def dies(job, environment, stop):
        raise Died

    def slow(job, environment, stop):
        threading.Event().wait(3.0)  # longer than the time-out: signs of life keep it
        return fake_job(job, environment, stop)

    chief = chief_of(search, address)
    with pytest.raises(Died):
        worker_of(search, address, "lost", dies).join()
    worker_of(search, address, "other", slow).join()
    chief.join()
    found = records(search)
    assert [(r["status"], r["worker"]) for r in found] == [("completed", "other")] * 3
    shown = capfd.readouterr().out
    assert "lost is gone: no word for 2 seconds; its trial 0000 goes to another" in shown
    assert "other is gone" not in shown


def test_a_chief_whose_workers_are_gone_ends_and_another_goes_on(tmp_path, address):
    search = make_search(tmp_path, max_trials=3, worker_timeout=2.0)

    def dies_at_the_second(job, environment, stop):
        if job.experiment.run.name == "trial_0001":
            raise Died
        return fake_job(job, environment, stop)

    chief = chief_of(search, address)
    with pytest.raises(Died):
        worker_of(search, address, "one", dies_at_the_second).join()
    with pytest.raises(UserError, match="nothing of it is lost"):
        chief.join()
    chief, worker = chief_of(search, address), worker_of(search, address, "one")
    worker.join()
    chief.join()
    assert [record["status"] for record in records(search)] == ["completed"] * 3


def test_a_trial_of_an_earlier_chief_whose_worker_does_not_come_back_goes_to_another(
    tmp_path, address
):
    """The new worker is not sent away though all trials have been given out."""
    search = make_search(tmp_path, max_trials=1, worker_timeout=2.0)
    write_search(search)
    build_oracle(search).create_trial("gone")
    chief, worker = chief_of(search, address), worker_of(search, address, "new")
    worker.join()
    chief.join()
    assert [(r["status"], r["worker"]) for r in records(search)] == [("completed", "new")]


def test_a_worker_whose_chief_is_gone_stops_its_trial_and_says_so(tmp_path, address, monkeypatch):
    monkeypatch.setattr("kerasseg.tuning.distributed._FIRST_SECONDS", 3.0)
    monkeypatch.setattr("kerasseg.tuning.distributed._ATTEMPT_SECONDS", 0.5)
    search = make_search(tmp_path, max_trials=3, worker_timeout=2.0, chief_timeout=2.0)
    with pytest.raises(UserError, match="the chief has not answered for 3 seconds"):
        ChiefClient(address, search.settings, Stop()).create_trial("one")

    began, ended = threading.Event(), threading.Event()

    def job(job, environment, stop):
        began.set()
        assert stop.wait(30)
        ended.set()
        return Outcome("stopped", None, 0.1, 1)

    # A chief that is killed says nothing: its server is stopped under it.
    servers = []
    original = __import__("grpc").server

    def kept(*arguments, **options):
        servers.append(original(*arguments, **options))
        return servers[-1]

    monkeypatch.setattr("kerasseg.tuning.distributed.grpc.server", kept)
    chief = chief_of(search, address)
    worker = worker_of(search, address, "one", job)
    assert began.wait(30)
    servers[0].stop(grace=None)
    with pytest.raises(UserError, match=r"the chief has not answered for 2 seconds .*is kept"):
        worker.join()
    assert ended.is_set() and records(search)[0]["status"] == "stopped"
    with pytest.raises(UserError, match="No worker has been heard of"):
        chief.join()


def test_a_worker_that_waits_for_its_chief_can_be_stopped(tmp_path, address, monkeypatch, capfd):
    monkeypatch.setattr("kerasseg.tuning.distributed._ATTEMPT_SECONDS", 0.2)
    stop = Stop()
    client = ChiefClient(address, make_search(tmp_path).settings, stop)
    waiting = Role(lambda: client.create_trial("one"))
    time.sleep(0.5)
    stop.number = signal.SIGTERM
    stop.set()
    with pytest.raises(SearchStopped):
        waiting.join(10)
    words = f"the chief at {address} does not answer, and is waited for up to 3600 seconds"
    assert capfd.readouterr().out.count(words) == 1


def test_a_worker_that_comes_with_another_search_is_refused(tmp_path, address):
    path = write_files(tmp_path, max_trials=2, worker_timeout=2.0)
    chief = chief_of(load_search(path), address)
    other = load_search(path, ["training.batch_size=1"])
    with pytest.raises(UserError, match=r"training.batch_size: 2 -> 1"):
        worker_of(other, address, "other").join()
    elsewhere = load_search(path, [f"search.root={tmp_path / 'elsewhere'}"])
    with pytest.raises(UserError, match="must be a folder that all machines share"):
        worker_of(elsewhere, address, "elsewhere").join()
    worker_of(load_search(path), address, "one").join()
    chief.join()


def test_an_address_that_is_taken_is_said(tmp_path, address):
    host, _, port = address.rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(UserError, match="another program has that port"):
            chief_of(make_search(tmp_path), address).join()
    time.sleep(0)
