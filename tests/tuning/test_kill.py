"""`tune.py` as a user starts and kills it: real processes, real training of a tiny network."""

import signal
import time

import psutil
import pytest

from kerasseg.tuning.search import load_search
from tests.program import Program
from tests.training.test_resume import QUICK
from tests.tuning.searches import records, write_files


def start(path, *overrides):
    return Program(["tune.py", "--config", path, *overrides])


def wait_for(path, process):
    end = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.stdout
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_search_goes_on_after_sigkill_and_after_sigterm(tmp_path):
    """Killed when its first trial has an epoch: the trial's process saves and ends, and the same
    command goes on with it. Stopped then: the trial is given back. Then it ends."""
    space = {"optimizer.learning_rate": {"choice": [1.0e-3, 1.0e-2]}}
    eager = "training.callbacks=[{tests.eager_steps.EagerSteps: {}}]"  # test_tune's are traced
    overrides = [*QUICK, "training.epochs=1", eager]
    path = write_files(tmp_path, space, "grid", overrides, max_trials=1, epochs=5)
    folder = tmp_path / "tuning" / "toy"
    history = folder / "runs" / "trial_0001" / "history.csv"

    process = start(path)
    wait_for(history, process)
    (trial,) = psutil.Process(process.pid).children()
    process.kill()
    psutil.wait_procs([trial], timeout=120)
    assert not trial.is_running(), "the trial ends with its parent"
    epochs = len(history.read_text().splitlines()) - 1
    assert 0 < epochs < 5

    process = start(path)
    output = folder / "processes" / "trial_0001" / "output.txt"
    wait_for(folder / "trials" / "0001.json", process)
    while len(history.read_text().splitlines()) - 1 <= epochs and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, shown = process.wait(120), process.stdout + process.stderr
    assert code == 143 and "The same command again goes on." in shown
    assert "stopped; kerasseg tune again goes on with it" in shown

    process = start(path)
    code, shown = process.wait(), process.stdout + process.stderr
    assert code == 0, shown
    assert f"kerasseg train --config {folder / 'best.yaml'}" in shown

    found = records(load_search(path))
    assert [(r["status"], r["executions"][0]["epochs"]) for r in found] == [("completed", 5)]
    assert output.read_text().count("Epoch 1/5") == 1, "no epoch was trained twice from the start"


@pytest.mark.all_only  # test_then_train shows the command that it becomes
def test_the_best_is_trained_for_as_long_as_the_base_says(tmp_path):
    overrides = [*QUICK, "training.epochs=1", "evaluation.overlays=0"]
    space = {"optimizer.learning_rate": {"choice": [1.0e-3, 1.0e-2]}}
    path = write_files(tmp_path, space, "grid", overrides, max_trials=1, epochs=2)
    process = start(path, "--then-train")
    code = process.wait()
    assert code == 0, process.stdout + process.stderr
    assert (tmp_path / "full" / "toy_best" / "report.html").exists()
