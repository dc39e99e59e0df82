"""Whole searches on one machine, with executions that are done at once."""

import errno
import os
import re
import threading
import time
from pathlib import Path

import pytest
import yaml

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.files import file_lock
from kerasseg.tuning.search import load_search
from kerasseg.tuning.trial_process import TrialOutcome
from kerasseg.tuning.tune import tune
from tests.tuning.searches import SPACE, fake_job, make_search, records, score_of, write_files


@pytest.fixture(autouse=True)
def quick(request):
    """All searches but one neither convert scans nor draw their page."""
    if request.function is not test_a_search_ends_with_a_table_a_figure_and_a_config_that_trains:
        request.getfixturevalue("no_scans_no_page")


def test_a_search_ends_with_a_table_a_figure_and_a_config_that_trains(tmp_path, capsys, request):
    search = make_search(tmp_path, max_trials=4, baseline=True, epochs=3, patience=2)
    best = tune(search, run_job=fake_job)
    shown = capsys.readouterr().out
    found = records(search)
    assert [record["number"] for record in found] == [0, 1, 2, 3, 4]
    assert found[0]["trial_id"] == "baseline" and found[0]["values"] == {}
    top = max(found, key=lambda record: record["score"])
    assert f"Best      trial {top['number']}: val_dice_smoothed {top['score']:.4f}" in shown
    gain = top["score"] - found[0]["score"]
    assert f"the base as it is: {gain:+.4f} by the search" in shown
    for record in found[1:]:
        assert re.search(rf"Trial {record['number']}/4 .*{record['score']:.4f}", shown)
    assert f"kerasseg train --config {best}" in shown
    experiment = load_experiment(best)
    assert experiment.optimizer.learning_rate == top["values"]["optimizer.learning_rate"]
    assert list(experiment.model.features) == top["values"]["model.features"]
    assert experiment.run.name == "toy_best" and experiment.run.root == search.base.run.root
    assert experiment.training == search.base.training, "as long as the base, not as a trial"
    assert experiment.store_root == search.base.store_root
    assert (search.folder / "figures" / "score_by_trial.png").read_bytes()[:4] == b"\x89PNG"
    capsys.readouterr()
    request.getfixturevalue("no_scans_no_page")
    assert tune(search, run_job=None) == best, "nothing is left to run"
    assert "goes on after 5 trial(s)" in capsys.readouterr().out


def test_a_base_that_no_trial_beats_is_the_best(tmp_path, capsys):
    search = make_search(tmp_path, max_trials=2, baseline=True)

    def job(job, environment, stop):
        score = 0.9 if job.experiment.run.name == "trial_baseline" else score_of(job)
        return TrialOutcome("completed", None, score, 2, 0.0, [score], None)

    best = tune(search, run_job=job)
    assert "the base as it is, val_dice_smoothed 0.9000: no trial was better" in (
        capsys.readouterr().out
    )
    assert load_experiment(best).model == search.base.model


def test_the_lowest_wins_where_the_objective_is_to_fall(tmp_path):
    search = make_search(tmp_path, max_trials=4, objective="val_loss")
    best = load_experiment(tune(search, run_job=fake_job))
    lowest = min(records(search), key=lambda record: record["score"])
    assert best.optimizer.learning_rate == lowest["values"]["optimizer.learning_rate"]


def test_without_a_completed_trial_there_is_no_best(tmp_path, capsys):
    search = make_search(tmp_path, max_trials=3)
    assert tune(search, run_job=lambda *job: TrialOutcome("failed", "memory ran out")) is None
    shown = capsys.readouterr().out
    assert "FAILED after 0.0 min: memory ran out" in shown
    assert "Failed    3 trial(s), the last: memory ran out" in shown
    assert "No trial was completed" in shown and not (search.folder / "best.yaml").exists()


def test_a_page_of_a_reason_is_one_line_on_the_screen(tmp_path, capsys):
    search = make_search(tmp_path, max_trials=1)
    reason = "InternalError: Graph execution error:\n" + "\n  Detected at node x" * 200
    assert tune(search, run_job=lambda *job: TrialOutcome("failed", reason)) is None
    shown = [line for line in capsys.readouterr().out.splitlines() if "InternalError" in line]
    assert len(shown) == 2 and all(line.endswith("…") and len(line) < 700 for line in shown)
    assert records(search)[0]["reason"] == reason


def test_another_space_or_base_is_refused_with_the_difference(tmp_path):
    tune(make_search(tmp_path, max_trials=1), run_job=fake_job)
    space = SPACE | {"optimizer.learning_rate": {"float": [1e-4, 5e-3], "log": True}}
    del space["model.features"]
    space["optimizer.ema"] = {"float": [0.5, 0.9]}
    overrides = ["training.batch_size=1"]
    other = make_search(tmp_path, space, overrides=overrides, seed=3, max_trials=1)
    with pytest.raises(UserError) as error:
        tune(other, run_job=fake_job)
    message = str(error.value)
    for words in (
        "belongs to another search",
        "search.seed: 0 -> 3",
        "search.space: optimizer.learning_rate: {'float': [0.0001, 0.01], 'log': True} -> "
        "{'float': [0.0001, 0.005], 'log': True}",
        "model.features: {'choice': [[4, 6], [6, 8]]} -> not searched",
        "optimizer.ema: not searched -> {'float': [0.5, 0.9]}",
        "training.batch_size: 2 -> 1",
    ):
        assert words in message
    with pytest.raises(UserError, match=r"search.tuner: random -> bayesian"):
        tune(make_search(tmp_path, tuner="bayesian", max_trials=1), run_job=fake_job)
    assert len(records(other)) == 1


def test_more_trials_and_other_places_are_no_other_search(tmp_path):
    path = write_files(tmp_path, max_trials=1)
    tune(load_search(path), run_job=fake_job)
    more = ["search.max_trials=2", "search.parallel=2", "run.root=elsewhere", "records.workers=2"]
    tune(load_search(path, more), run_job=fake_job)
    assert len(records(load_search(path))) == 2


def test_a_damaged_search_file_is_an_error(tmp_path):
    search = make_search(tmp_path, max_trials=1)
    tune(search, run_job=fake_job)
    (search.folder / "search.yaml").write_text("search: [")
    with pytest.raises(UserError, match=r"search.yaml: not readable as YAML.*\n?.*Use another"):
        tune(search, run_job=fake_job)


def test_a_search_whose_own_file_is_gone_is_not_gone_on_with(tmp_path):
    search = make_search(tmp_path, max_trials=1)
    tune(search, run_job=fake_job)
    (search.folder / "search.yaml").unlink()
    with pytest.raises(UserError, match=r"holds trials, but search.yaml.* is gone"):
        tune(search, run_job=fake_job)


@pytest.mark.parametrize("tuner", ["random", "hyperband", "grid"])
def test_a_record_that_is_gone_is_restored(tmp_path, capsys, tuner):
    """A trial that is done is not given out again, and may be the best."""
    space = {"model.features": SPACE["model.features"]} if tuner == "grid" else SPACE
    more = {"epochs": 4, "factor": 2} if tuner == "hyperband" else {}
    count = {"random": 4, "grid": 2, "hyperband": None}[tuner]
    path = write_files(tmp_path, space, tuner, max_trials=count, baseline=True, **more)
    search = load_search(path)
    tune(search, run_job=fake_job)
    before, asked = records(search), []
    best = max(before[1:], key=lambda record: record["score"])
    for record in before:
        run = search.folder / record["executions"][0]["run"]
        run.mkdir(parents=True, exist_ok=True)
        curve = record["executions"][0]["curve"]
        rows = [f"{epoch},{score}" for epoch, score in enumerate(curve, 1)]
        (run / "history.csv").write_text("\n".join(["epoch,val_dice_smoothed", *rows]))
    for trial in ("baseline", f"{best['number']:04d}"):
        (search.folder / "trials" / f"{trial}.json").unlink()
    capsys.readouterr()

    def job(job, environment, stop):
        asked.append(job.experiment.run.name)
        return fake_job(job, environment, stop)

    tune(load_search(path), run_job=job)
    assert asked == ["trial_baseline"]
    shown = capsys.readouterr().out
    assert f"Best      trial {best['number']}: val_dice_smoothed {best['score']:.4f}" in shown
    assert f"Restored   {search.folder}/trials/{best['number']:04d}.json" in shown
    kept = ("number", "status", "score", "values", "bracket", "round", "epochs_to")
    for old, new in zip(before, records(search), strict=True):
        assert [old[name] for name in kept] == [new[name] for name in kept]
        for name in ("run", "score", "epochs", "curve"):
            assert old["executions"][0][name] == new["executions"][0][name]


def test_a_full_disk_ends_the_search_and_costs_no_trial(tmp_path):
    search = make_search(tmp_path, max_trials=2)
    full = TrialOutcome("stopped", "Writing x failed: the disk is full: free some space", None, 0)
    with pytest.raises(UserError, match=r"the disk is full.*\nThe search ends here; the same"):
        tune(search, run_job=lambda *job: full)
    assert [record["status"] for record in records(search)] == ["stopped"]
    tune(search, run_job=fake_job)
    assert [(r["status"], r["reason"]) for r in records(search)] == [("completed", None)] * 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, monkeypatch, error):
    search = make_search(tmp_path, max_trials=1)

    def refuse(self, *arguments, **options):
        raise OSError(error, os.strerror(error), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"Making .*\.lock failed: .* with search.root=FOLDER"):
        tune(search, run_job=fake_job)


def test_a_full_disk_does_not_keep_a_lock_from_being_held(tmp_path):
    """/dev/full takes no byte."""
    (tmp_path / "lock").symlink_to("/dev/full")
    with file_lock(tmp_path / "lock", "x", "search.root"):
        pass


def test_one_search_at_a_time_in_a_folder(tmp_path):
    search = make_search(tmp_path, max_trials=1)
    with (
        file_lock(search.folder / ".lock", "x", "search.root"),
        pytest.raises(UserError, match=r"this search is going on already.*process \d+ on"),
    ):
        tune(search, run_job=fake_job)


def test_trials_at_a_time_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    search = make_search(tmp_path, max_trials=6)
    meeting, seen = threading.Barrier(2, timeout=30), []

    def job(job, environment, stop):
        meeting.wait()  # never passed by one alone
        seen.append(environment["CUDA_VISIBLE_DEVICES"])
        return fake_job(job, environment, stop)

    tune(search, run_job=job)
    assert sorted(seen) == ["3"] * 3 + ["5"] * 3
    found = records(search)
    assert len({str(record["values"]) for record in found}) == 6
    assert {record["worker"] for record in found} == {"tuner0", "tuner1"}


def test_the_end_of_the_time_stops_the_running_trial_and_more_time_goes_on_with_it(
    tmp_path, capsys
):
    path = write_files(tmp_path, max_trials=2, minutes=0.01)
    asked = []

    def job(job, environment, stop):
        asked.append(job.deadline)
        time.sleep(max(job.deadline - time.time(), 0) + 0.05)
        return TrialOutcome("stopped", None, 0.1, 1, 0.0, [0.1])

    assert tune(load_search(path), run_job=job) is None
    assert "search.minutes=0.01 are over" in capsys.readouterr().out
    search = load_search(path, ["search.minutes=10"])
    assert [record["status"] for record in records(search)] == ["stopped"]
    assert len(asked) == 1 and asked[0] == pytest.approx(records(search)[0]["started"], abs=60)
    tune(search, run_job=fake_job)
    assert [record["status"] for record in records(search)] == ["completed"] * 2


def test_what_breaks_the_search_itself_is_raised_not_recorded(tmp_path):
    def job(job, environment, stop):
        raise OSError(28, "No space left on device", "x")

    with pytest.raises(OSError, match="No space"):
        tune(make_search(tmp_path, max_trials=2), run_job=job)


def test_search_yaml_is_what_was_asked_for(tmp_path):
    search = make_search(tmp_path, max_trials=1)
    tune(search, run_job=fake_job)
    values = yaml.safe_load((search.folder / "search.yaml").read_text())
    assert values["search"]["space"] == SPACE
    assert values["base"]["run"]["name"] == "tiny"
    assert values["experiment"]["training"]["epochs"] == 2
