"""A chief and its workers: who is given what, and who is given up, with executions that are done at
once. Time is a number that the tests set, but for those over gRPC."""

import signal
import socket
import threading

import grpc
import pytest

from kerasseg.errors import UserError
from kerasseg.tuning.distributed import Chief, ChiefClient
from kerasseg.tuning.oracles import build_oracle
from kerasseg.tuning.search import load_search, write_search_file
from kerasseg.tuning.trial_process import TrialOutcome
from kerasseg.tuning.trials import NextTrial, TrialRecord, write_record
from kerasseg.tuning.tune import tune_as_chief, tune_as_worker
from kerasseg.tuning.workers import SearchStopped, StopEvents
from tests.tuning.searches import SPACE, fake_job, make_search, records, write_files

pytestmark = pytest.mark.usefixtures("no_scans_no_page")

RATE = "optimizer.learning_rate"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make_chief(search, clock):
    return Chief(build_oracle(search), search, lambda record: None, clock)


def finish(chief, trial, worker):
    chief.finish_trial(trial["trial_id"], worker, status="completed", score=0.5, reason=None)


def test_the_trial_of_a_lost_worker_goes_to_another_and_signs_of_life_keep_one(tmp_path, capsys):
    search, clock = make_search(tmp_path, max_trials=2, worker_timeout=10.0), Clock()
    chief = make_chief(search, clock)
    lost, kept = chief.next_trial("lost"), chief.next_trial("other")
    for clock.now in (4.0, 8.0, 11.0):
        assert chief.keep_alive(kept["trial_id"], "other")
        assert not chief.check_workers()
    assert capsys.readouterr().out == (
        "Worker     lost is gone: no word for 10 seconds; its trial 1 goes to another\n"
    )
    finish(chief, kept, "other")
    again = chief.next_trial("other")
    assert again["trial_id"] == lost["trial_id"] and again["values"] == lost["values"]
    assert not chief.keep_alive(lost["trial_id"], "lost"), "it was only slow, and is too late"
    finish(chief, again, "other")
    assert chief.next_trial("other")["status"] == "STOPPED"
    assert chief.check_workers(), "the search is over"


def test_a_slow_worker_keeps_a_trial_that_nobody_else_has(tmp_path):
    search, clock = make_search(tmp_path, max_trials=1, worker_timeout=10.0), Clock()
    chief = make_chief(search, clock)
    trial = chief.next_trial("slow")
    clock.now = 11.0
    with pytest.raises(UserError, match="No worker has been heard of"):
        chief.check_workers()
    assert chief.keep_alive(trial["trial_id"], "slow")
    assert not chief.check_workers()


def test_a_chief_without_workers_ends_with_a_message_and_another_goes_on(tmp_path):
    search, clock = make_search(tmp_path, max_trials=3, worker_timeout=10.0), Clock()
    chief = make_chief(search, clock)
    clock.now = 9.0
    assert not chief.check_workers()
    clock.now = 11.0
    with pytest.raises(UserError, match="No worker has been heard of for 10 seconds"):
        chief.check_workers()
    finish(chief, chief.next_trial("one"), "one")
    second = chief.next_trial("one")
    clock.now = 22.0
    with pytest.raises(UserError, match="nothing of it is lost"):
        chief.check_workers()

    chief = make_chief(search, clock)
    assert chief.next_trial("one")["trial_id"] == second["trial_id"]
    assert chief.oracle.end_order == ["0000"]


def test_a_trial_of_an_earlier_chief_whose_worker_does_not_come_back_goes_to_another(tmp_path):
    """The new worker is not sent away though all trials have been given out."""
    search, clock = make_search(tmp_path, max_trials=1, worker_timeout=10.0), Clock()
    make_chief(search, clock).next_trial("gone")
    chief = make_chief(search, clock)
    assert chief.next_trial("new")["status"] == "IDLE"
    clock.now = 11.0
    chief.keep_alive("", "new")
    chief.next_trial("new")
    assert not chief.check_workers()
    assert chief.next_trial("new")["trial_id"] == "0000"


def test_a_record_that_another_worker_has_begun_anew_is_not_shown(tmp_path):
    search, shown = make_search(tmp_path, max_trials=1), []
    chief = Chief(build_oracle(search), search, shown.append)
    trial = chief.next_trial("slow")
    running = TrialRecord(trial["trial_id"], 1, "running", None, None, {}, [], 0.0)
    write_record(search.folder, running)
    finish(chief, trial, "slow")
    assert not shown and chief.error is None
    assert chief.next_trial("slow")["status"] == "STOPPED"


# Over gRPC.


@pytest.fixture
def address():
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


@pytest.fixture
def quick(monkeypatch):
    """Workers and chiefs ask more often."""
    monkeypatch.setattr("kerasseg.tuning.workers._IDLE_SECONDS", 0.05)
    monkeypatch.setattr("kerasseg.tuning.distributed._CHECK_SECONDS", 0.05)


def test_two_workers_share_the_trials_of_a_chief(tmp_path, address, quick, capfd):
    space = {
        "optimizer.name": {"choice": ["adam", "sgd"]},
        "optimizer.momentum": {"float": [0.5, 0.9], "when": {"optimizer.name": "sgd"}},
        "optimizer.learning_rate": {"float": [1.23456789e-4, 1e-2], "log": True},
        "model.features": {"choice": [[4, 6], [6, 8]]},
    }
    search = make_search(tmp_path, space, max_trials=6, baseline=True)
    together = threading.Barrier(2, timeout=30)

    def job(job, environment, stop):
        if job.experiment.run.name in ("trial_baseline", "trial_0001"):
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
    assert all(f"Trial {number}/6" in shown for number in range(1, 7))


def test_hyperband_over_workers_waits_for_its_rounds(tmp_path, address, quick):
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


def test_a_worker_whose_chief_is_gone_stops_its_trial_and_says_so(
    tmp_path, address, quick, monkeypatch
):
    monkeypatch.setattr("kerasseg.tuning.distributed._FIRST_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("kerasseg.tuning.distributed._ATTEMPT_SECONDS", 0.3)
    search = make_search(tmp_path, max_trials=3, worker_timeout=2.0, chief_timeout=2.0)
    with pytest.raises(UserError, match=r"the chief has not answered for 0.3 seconds"):
        ChiefClient(address, search.settings, StopEvents()).next_trial("one")

    monkeypatch.setattr("kerasseg.tuning.distributed._FIRST_ANSWER_SECONDS", 30.0)
    began, ended = threading.Event(), threading.Event()

    def job(job, environment, stop):
        began.set()
        assert stop.wait(30)
        ended.set()
        return TrialOutcome("stopped", None, 0.1, 1)

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
    monkeypatch.setattr("kerasseg.tuning.distributed._ATTEMPT_SECONDS", 0.1)
    stop, says_that_it_waits = StopEvents(), threading.Event()
    client = ChiefClient(address, make_search(tmp_path).settings, stop)
    show = client._show

    def show_and_note(is_away):
        show(is_away)
        says_that_it_waits.set()

    monkeypatch.setattr(client, "_show", show_and_note)
    waiting = Role(lambda: client.next_trial("one"))
    assert says_that_it_waits.wait(30)
    stop.signal_number = signal.SIGTERM
    stop.stop_all()
    with pytest.raises(SearchStopped):
        waiting.join(10)
    words = f"the chief at {address} does not answer, and is waited for up to 3600 seconds"
    assert capfd.readouterr().out.count(words) == 1


def test_a_worker_that_comes_with_another_search_is_refused(tmp_path, address, quick):
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


def test_what_is_no_request_of_a_worker_does_not_end_the_search(tmp_path, address, quick):
    search = make_search(tmp_path, max_trials=1)
    chief = chief_of(search, address)
    with grpc.insecure_channel(address) as channel:
        for request in (b"\xff", b"[]", b'{"name": "one"}'):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/kerasseg.Chief/next_trial")(
                    request, timeout=30, wait_for_ready=True
                )
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    worker_of(search, address, "one").join()
    assert chief.join() == search.folder / "best.yaml"


def test_a_chief_that_fails_tells_its_workers(tmp_path, address, quick, monkeypatch):
    def fail(self, trial_id):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerasseg.tuning.oracles.RandomOracle.populate_space", fail, raising=False)
    search = make_search(tmp_path, max_trials=2)
    chief, worker = chief_of(search, address), worker_of(search, address, "one")
    with pytest.raises(UserError, match=r"the chief has failed: .*No space left"):
        worker.join()
    with pytest.raises(OSError, match="No space left"):
        chief.join()


def test_a_worker_goes_on_where_its_trial_was_given_away_as_it_ended(tmp_path, monkeypatch):
    """The trial was asked to stop, but was done by then."""
    trials = [NextTrial("RUNNING", f"000{n}", {RATE: 1e-3 / (n + 1)}) for n in range(3)]
    left, done = [*trials, NextTrial("STOPPED")], []

    class Client:
        def __init__(self, address, settings, stop):
            self.settings = settings

        def next_trial(self, worker):
            return left.pop(0)

        def keep_alive(self, trial_id, worker):
            return trial_id != "0000"

        def finish_trial(self, trial_id, *how):
            done.append(trial_id)

    def job(job, environment, stop):
        if job.experiment.run.name == "trial_0001":
            assert stop.wait(30)
        return fake_job(job, environment, stop)

    monkeypatch.setattr("kerasseg.tuning.tune.ChiefClient", Client)
    search = make_search(tmp_path, {RATE: SPACE[RATE]}, worker_timeout=2.0)
    write_search_file(search)
    tune_as_worker(search, "host:1", "one", run_job=job)
    assert done == ["0000", "0001", "0002"]


def test_an_address_that_is_taken_is_said(tmp_path, address):
    host, _, port = address.rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(UserError, match="another program has that port"):
            chief_of(make_search(tmp_path), address).join()
