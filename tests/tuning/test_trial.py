"""What the process of a trial does, called in this process: real training of a tiny network."""

import errno
import json
import shutil
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.errors import storage_error
from kerasseg.files import file_lock
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.run import read_history
from kerasseg.run_experiment import run_experiment
from kerasseg.tuning.trial import run_job
from kerasseg.tuning.trial_process import TrialJob
from tests.conftest import phantom_experiment
from tests.training.test_resume import QUICK as SMALL

QUICK = (*SMALL, "training.steps_per_epoch=2", "training.epochs=2")


@pytest.fixture(scope="session")
def store(shared_once):
    """A converted store, which the trials share as those of a search do."""

    def build(folder):
        experiment = phantom_experiment(folder)
        open_split(open_store(experiment), experiment.split)

    return shared_once("trial_store", build) / "store"


def make_job(folder, store, name, *overrides, last_epoch=2, **options):
    root = [f"records.root={store}", f"run.name={name}"]
    experiment = phantom_experiment(folder, *QUICK, *root, *overrides)
    given = {"objective": "val_dice_smoothed", "direction": "max"} | options
    job = TrialJob(folder / name, experiment, last_epoch, **given)
    job.write()
    return job


def weights(folder):
    with np.load(folder / "checkpoints" / "state.npz") as state:
        return {name: state[name] for name in state.files if name != "progress"}


def test_a_trial_is_a_run_folder_without_an_evaluation(tmp_path, store):
    """Of a trial that was killed while its folder was made, which nothing can resume.

    The end of its time stops it after an epoch, and it goes on.
    """
    options = ["optimizer.schedule=cosine", "optimizer.ema=0.9"]
    folder = tmp_path / "runs" / "trial"
    (folder / "checkpoints").mkdir(parents=True)
    job = make_job(tmp_path, store, "trial", *options, deadline=time.time() - 1)
    outcome = run_job(job.folder)
    assert (outcome.status, outcome.epochs) == ("stopped", 1)
    assert len(read_history(folder / "history.csv")) == 1

    # As hyperband does it: the second epoch in a run folder of its own.
    copied = tmp_path / "runs" / "round1"
    shutil.copytree(folder, copied)
    job = make_job(tmp_path, store, "round2", *options, continue_from=copied)
    second = run_job(job.folder)
    assert (second.status, second.epochs, len(second.curve)) == ("completed", 2, 2)

    job = make_job(tmp_path, store, "trial", *options, deadline=time.time() + 900)
    outcome = run_job(job.folder)
    assert {path.name for path in folder.parent.iterdir()} == {"trial", "round1", "round2"}
    rows = read_history(folder / "history.csv")
    curve = [float(row["val_dice_smoothed"]) for row in rows]
    assert outcome.curve == curve and outcome.score == max(curve)
    assert (outcome.status, outcome.epochs) == ("completed", 2)
    assert 0.05 < outcome.peak_memory_gib < 100
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "split.json", "environment.json", "summary.json", "tensorboard"} <= names
    assert "metrics.csv" not in names and "report.html" not in names
    assert keras.saving.load_model(folder / "checkpoints" / "best.keras")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 2 and summary["dice"] == {}
    # Of the two epochs the learning rate is that of both, and both ways to them end alike.
    rates = [float(row["learning_rate"]) for row in rows]
    assert len(set(rates)) > 1
    assert second.curve == curve
    assert read_history(tmp_path / "runs" / "round2" / "history.csv") == rows
    expected, found = weights(folder), weights(tmp_path / "runs" / "round2")
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    written = (folder / "history.csv").read_bytes()
    assert run_job(job.folder).curve == curve, "killed before its result was read, it is done"
    job = make_job(tmp_path, store, "trial", *options, objective="val_nothing")
    outcome = run_job(job.folder)
    assert outcome.status == "failed" and outcome.epochs == 2
    assert "search.objective: val_nothing is not logged: there are dice," in outcome.reason
    assert (folder / "history.csv").read_bytes() == written, "nothing was trained again"


@pytest.mark.all_only  # test_resume shows that epochs one by one are those of one run
def test_rounds_of_hyperband_equal_one_run_of_all_epochs(tmp_path, store):
    """Epoch by epoch, each in a run folder of its own: the weights, the optimiser and the history
    of one run; its learning rate is that of all epochs."""
    options = ["optimizer.schedule=cosine", "optimizer.ema=0.9"]
    whole = make_job(tmp_path, store, "whole", *options)
    run_experiment(whole.experiment, evaluated=False)
    before = None
    for epoch in (1, 2):
        name = f"round{epoch}"
        job = make_job(tmp_path, store, name, *options, last_epoch=epoch, continue_from=before)
        outcome = run_job(job.folder)
        before = tmp_path / "runs" / name
        assert (outcome.status, outcome.epochs, len(outcome.curve)) == ("completed", epoch, epoch)
        assert len(read_history(before / "history.csv")) == epoch
    expected, found = weights(tmp_path / "runs" / "whole"), weights(before)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
    histories = [
        read_history(folder / "history.csv") for folder in (tmp_path / "runs/whole", before)
    ]
    rates = [[float(row["learning_rate"]) for row in history] for history in histories]
    assert rates[0] == pytest.approx(rates[1])
    assert len(set(rates[0])) > 1
    assert outcome.score == pytest.approx(max(outcome.curve))


def test_a_trial_that_diverges_says_so_and_keeps_its_curve(tmp_path, store):
    bad = "training.callbacks=[{tests.tuning.bad_callbacks.SpoilWeights: {}}]"
    outcome = run_job(make_job(tmp_path, store, "trial", bad).folder)
    assert outcome.status == "failed" and len(outcome.curve) == 1
    assert "is not finite in epoch 2" in outcome.reason


def test_a_crash_is_a_failure_with_its_words(tmp_path, store, capsys):
    bad = "training.callbacks=[{tests.tuning.bad_callbacks.Crash: {}}]"
    outcome = run_job(make_job(tmp_path, store, "trial", bad).folder)
    assert (outcome.status, outcome.reason) == ("failed", "RuntimeError: a mistake in a program")
    assert "Traceback" in capsys.readouterr().err


def test_a_run_to_go_on_from_that_is_gone_is_said(tmp_path, store):
    gone = tmp_path / "runs" / "gone"
    outcome = run_job(make_job(tmp_path, store, "trial", continue_from=gone).folder)
    assert outcome.status == "failed" and "the run that this trial goes on from is gone" in (
        outcome.reason
    )


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "cause", [FULL, tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")]
)
def test_a_full_disk_is_no_fault_of_the_trial(tmp_path, store, monkeypatch, cause):
    """As a write of the run is refused in kerasseg, from the error of the system."""

    def full(*arguments, **options):
        raise storage_error(FULL, "Writing last.keras", "run.root") from cause

    monkeypatch.setattr("kerasseg.run_experiment.run_experiment", full)
    outcome = run_job(make_job(tmp_path, store, "trial").folder)
    assert outcome.status == "stopped" and "the disk is full" in outcome.reason
    assert "with search.root=FOLDER" in outcome.reason


def test_memory_that_runs_out_fails_the_trial_and_says_what_helps(tmp_path, store, monkeypatch):
    """As TensorFlow raises it in a step, of which a GPU's message is a page."""

    def step(*arguments, **options):
        message = "OOM when allocating tensor with shape[8,64]\nDetected at node:" + "\n  line" * 40
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr("kerasseg.training.fit.run_epochs", step)
    outcome = run_job(make_job(tmp_path, store, "trial").folder)
    assert outcome.status == "failed" and "\n" not in outcome.reason
    assert "(OOM when allocating tensor with shape[8,64])" in outcome.reason
    assert "use a smaller pipeline.patch_size" in outcome.reason


def test_a_trial_that_another_process_trains_is_left_to_it(tmp_path, store, monkeypatch):
    monkeypatch.setattr("kerasseg.tuning.trial._LOCK_SECONDS", 0.1)
    job = make_job(tmp_path, store, "trial")
    with file_lock(job.folder / ".lock", "x", "search.root"):
        outcome = run_job(job.folder)
    assert outcome.status == "stopped" and not (tmp_path / "runs").exists()
    assert "another process trains this trial; two workers of one name" in outcome.reason
