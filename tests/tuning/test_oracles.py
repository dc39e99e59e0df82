"""The four tuners with executions that are done at once: what they try, and that a kill at any
moment changes nothing of it."""

import itertools
import random
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from kerasseg import files
from kerasseg.errors import UserError
from kerasseg.tuning.oracles import build_oracle
from kerasseg.tuning.space import plain_values
from kerasseg.tuning.trial_process import TrialOutcome
from kerasseg.tuning.trials import TrialRunner, read_record
from kerasseg.tuning.workers import run_trials
from tests.tuning.searches import SPACE, fake_job, make_search, records

GRID = {
    "optimizer.name": {"choice": ["adam", "sgd"]},
    "optimizer.momentum": {
        "float": [0.5, 0.9],
        "step": 0.2,
        "when": {"optimizer.name": "sgd"},
    },
    "model.features": {"choice": [[4, 6], [6, 8]]},
    "augment.preset": {"choice": ["none", "light"], "when": {"model.features": [[6, 8]]}},
}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def run(search, job=fake_job, worker="tuner0"):
    """A search to its end, in this thread."""
    stop = threading.Event()
    runner = TrialRunner(search, worker, stop=stop, run_job=job)
    oracle = build_oracle(search)
    run_trials(oracle, worker, runner.run, stop, lambda record: None)
    return oracle


def tried(search):
    """Values, scores, rounds: all that must not depend on a stop."""
    kept = ("number", "status", "score", "values", "bracket", "round", "epochs_to")
    return [
        {name: record[name] for name in (*kept, "continued_from")} for record in records(search)
    ]


def settings_of(tuner):
    if tuner == "grid":
        return {"space": GRID, "tuner": "grid"}
    if tuner == "hyperband":
        return {"tuner": "hyperband", "epochs": 4, "factor": 2}
    if tuner == "bayesian":  # of one parameter three trials are drawn, then there is a process
        space = {"optimizer.learning_rate": SPACE["optimizer.learning_rate"]}
        return {"space": space, "tuner": tuner, "max_trials": 4}
    return {"tuner": tuner, "max_trials": 8}


def test_a_grid_has_every_combination_once_and_no_inactive_value(tmp_path):
    search = make_search(tmp_path, GRID, "grid")
    oracle = run(search)
    expected = [
        {"optimizer.name": name, "model.features": features} | more | extra
        for name, features in itertools.product(["adam", "sgd"], [[4, 6], [6, 8]])
        for more in (
            [{}] if name == "adam" else [{"optimizer.momentum": m} for m in (0.5, 0.7, 0.9)]
        )
        for extra in (
            [{}] if features == [4, 6] else [{"augment.preset": p} for p in ("none", "light")]
        )
    ]
    found = [record["values"] for record in records(search)]
    assert len(found) == len(expected) == 12
    assert all(values in found for values in expected)
    assert oracle.why_ended() is None


def test_a_grid_of_an_earlier_version_goes_on(tmp_path):
    """KerasTuner's own grid search had given out five of the twelve combinations."""
    search = make_search(tmp_path, GRID, "grid")
    search.folder.mkdir(parents=True)
    state = Path(__file__).with_name("grid_of_an_earlier_version.json")
    shutil.copy(state, search.folder / "oracle.json")
    oracle = run(search)
    assert [record["number"] for record in records(search)] == list(range(6, 13))
    values = [plain_values(search.space, t.hyperparameters.values) for t in oracle.trials.values()]
    assert len(values) == len({str(each) for each in values}) == 12


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid", "hyperband"])
def test_a_seed_gives_the_same_search_and_another_one_another(tmp_path, tuner):
    first, again = (make_search(tmp_path / name, **settings_of(tuner)) for name in "ab")
    run(first)
    run(again)
    assert tried(first) == tried(again)
    if tuner in ("random", "hyperband"):  # a grid has none, and bayesian begins as random does
        other = make_search(tmp_path / "c", **settings_of(tuner), seed=1)
        run(other)
        assert tried(first) != tried(other)


def test_bayesian_comes_closer_to_the_top_than_it_began(tmp_path):
    space = {"optimizer.learning_rate": SPACE["optimizer.learning_rate"]}
    search = make_search(tmp_path, space, "bayesian", max_trials=6)
    run(search)
    scores = [record["score"] for record in records(search)]
    assert max(scores[3:]) > max(scores[:3])
    rates = [record["values"]["optimizer.learning_rate"] for record in records(search)]
    assert len(set(rates)) == len(rates) and all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_bayesian_does_not_try_the_same_twice(tmp_path):
    space = {"model.features": {"choice": [[4, 6], [6, 8], [4, 8], [8, 8]]}}
    search = make_search(tmp_path, space, "bayesian", max_trials=30)
    run(search)
    values = [str(record["values"]) for record in records(search)]
    assert len(values) == len(set(values)) <= 4


def test_hyperband_promotes_the_best_of_each_round(tmp_path):
    search = make_search(tmp_path, **settings_of("hyperband"))
    oracle = run(search)
    found = records(search)
    assert len(found) == oracle.total
    by_id = {record["trial_id"]: record for record in found}
    brackets = {record["bracket"] for record in found}
    assert brackets == {0, 1, 2}
    for bracket in brackets:
        rounds = [r["round"] for r in found if r["bracket"] == bracket]
        assert max(rounds) == bracket, "a bracket of number n has n promotions"
        for number in range(1, bracket + 1):
            before = [r for r in found if (r["bracket"], r["round"]) == (bracket, number - 1)]
            promoted = [r for r in found if (r["bracket"], r["round"]) == (bracket, number)]
            best = sorted(before, key=lambda r: -r["score"])[: len(promoted)]
            assert {r["continued_from"] for r in promoted} == {r["trial_id"] for r in best}
            for record in promoted:
                earlier = by_id[record["continued_from"]]
                assert record["values"] == earlier["values"]
                assert record["epochs_to"] > earlier["epochs_to"]
    assert max(record["epochs_to"] for record in found) == 4


def test_hyperband_announces_what_a_small_space_allows(tmp_path):
    space = {"model.features": {"choice": [[4, 6], [6, 8]]}}
    search = make_search(tmp_path, space, **settings_of("hyperband"))
    assert build_oracle(search).total == 2 == len(records(run(search) and search))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_hyperband_goes_on_with_those_that_did_not_fail(tmp_path, lost):
    """Of a first round of 4 that some of fail, KerasTuner itself would let fewer or none go on."""
    search = make_search(tmp_path, **settings_of("hyperband"), stop_after_failures=None)

    def job(job, environment, stop):
        number = int(job.experiment.run.name.removeprefix("trial_"))
        return TrialOutcome("failed", "no") if number <= lost else fake_job(job, environment, stop)

    run(search, job)
    found = [record for record in records(search) if record["bracket"] == 2]
    sizes = [len([r for r in found if r["round"] == number]) for number in range(3)]
    first = [r for r in found if r["round"] == 0]
    good = sum(record["status"] == "completed" for record in first)
    assert sizes[0] - good == lost
    assert sizes == [4, min(2, good), 1]


def test_failed_trials_are_recorded_and_the_search_goes_on_until_too_many_in_a_row(tmp_path):
    search = make_search(tmp_path, max_trials=20, stop_after_failures=3)

    def job(job, environment, stop):
        number = int(job.experiment.run.name.removeprefix("trial_"))
        failed = number in (2, 3, 5) or number >= 8
        return TrialOutcome("failed", "NaN") if failed else fake_job(job, environment, stop)

    oracle = run(search, job)
    assert [record["status"][0] for record in records(search)] == list("cffcfccfff")
    assert records(search)[1]["reason"] == "NaN" and records(search)[1]["score"] is None
    assert oracle.why_ended() == "the last 3 trials failed (search.stop_after_failures=3)"


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid", "hyperband"])
def test_a_kill_at_any_write_changes_nothing(tmp_path, tuner, monkeypatch):
    """Two in five of its writes are the last thing that the process does, or would have done. The
    search goes on in new objects, as a new process does."""
    options = settings_of(tuner)
    whole = make_search(tmp_path / "whole", **options, baseline=True)
    run(whole)
    killed = make_search(tmp_path / "killed", **options, baseline=True)
    kills, draw = 0, random.Random(tuner)
    original = files.atomic_write

    @contextmanager
    def killed_at(path, setting):
        nonlocal kills
        when = draw.random()
        if when < 0.2:
            kills += 1
            raise Killed
        with original(path, setting) as temporary:
            yield temporary
        if when > 0.8:
            kills += 1
            raise Killed

    monkeypatch.setattr(files, "atomic_write", killed_at)

    def job(job, environment, stop):
        name = job.experiment.run.name.removeprefix("trial_")
        record = read_record(killed.folder / "trials" / f"{name}.json")
        assert not record.is_done, "a finished trial is not run again"
        return fake_job(job, environment, stop)

    while True:
        try:
            run(killed, job)
            break
        except Killed:
            continue
    assert kills > 10
    assert tried(killed) == tried(whole)
    finished = [record["executions"] for record in records(killed)]
    assert all(len(executions) == 1 for executions in finished)


def test_a_finished_trial_is_not_run_again(tmp_path):
    search = make_search(tmp_path, max_trials=4)
    run(search)
    more = make_search(tmp_path, max_trials=6)
    done = []

    def job(job, environment, stop):
        done.append(job.experiment.run.name)
        return fake_job(job, environment, stop)

    run(more, job)
    assert done == ["trial_0005", "trial_0006"]


def test_time_is_counted_over_all_starts(tmp_path):
    search = make_search(tmp_path, max_trials=4, minutes=0.5)
    oracle = build_oracle(search)
    assert 29 < oracle.seconds_left() <= 30
    oracle._started -= 20
    oracle.next_trial("tuner0")
    oracle = build_oracle(search)
    assert 9 < oracle.seconds_left() < 10 and oracle.why_ended() is None
    oracle._started -= 20
    assert oracle.next_trial("tuner0").status == "STOPPED"
    assert oracle.why_ended() == "search.minutes=0.5 are over: with more, the search goes on"


@pytest.mark.parametrize("text", ['{"oracle": ', "[]", '{"oracle": {}, "trials": []}', "null"])
def test_a_state_that_is_damaged_is_an_error(tmp_path, text):
    search = make_search(tmp_path)
    search.folder.mkdir(parents=True)
    (search.folder / "oracle.json").write_text(text)
    with pytest.raises(UserError, match=r"oracle.json: cannot be read as the state of a search"):
        build_oracle(search)


def test_what_a_worker_of_a_removed_search_says_is_not_taken_down(tmp_path):
    oracle = build_oracle(make_search(tmp_path))
    oracle.next_trial("one")
    oracle.finish_trial("0007", "stray", "completed", 0.9)
    assert list(oracle.trials) == ["0000"] and not oracle.end_order


def test_a_chief_that_is_started_again_keeps_trials_for_those_who_have_them(tmp_path):
    search = make_search(tmp_path, max_trials=3, baseline=True)
    before = build_oracle(search)
    given = {worker: before.next_trial(worker).trial_id for worker in ("one", "two")}
    assert given == {"one": "baseline", "two": "0000"}
    chief = build_oracle(search)
    assert set(chief.reclaim_all()) == {"one", "two"}
    assert chief.next_trial("three").trial_id == "0001"
    assert [chief.next_trial(worker).trial_id for worker in given] == list(given.values())
    chief.finish_trial("baseline", "one", "completed", 0.5)
    assert chief.release("two") == "0000", "it did not come back"
    assert chief.next_trial("one").trial_id == "0000"
    # On one machine no worker outlives the search.
    alone = build_oracle(search)
    assert {alone.next_trial(f"tuner{n}").trial_id for n in range(2)} == {"0000", "0001"}
