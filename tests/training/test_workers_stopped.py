"""train.py in two processes under TF_CONFIG: one is killed or stopped, all go on together."""

import json
import re
import shutil

import numpy as np
import pytest

from tests.program import NO_FIGURES, run_program
from tests.training import killed
from tests.training.worker_processes import (
    UPDATES,
    check_equal,
    command,
    finish_both,
    noise_of,
    run_of_one_process,
    train_both,
)


@pytest.fixture(scope="session")
def alone(shared_once):
    return run_of_one_process(shared_once)


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, pytest.param(True, marks=pytest.mark.all_only)])
def test_killed_stopped_and_resumed_equals_one_process(alone, tmp_path, twice):
    """Worker 1 is killed in an update, then SIGTERM is sent to the chief in its validation; both
    end what they began. With `twice` the chief is killed and worker 1 is stopped, too, and one
    process ends it."""
    chief, other = train_both(tmp_path, other=killed.plan("update", UPDATES + 2))
    assert (chief.code, other.code) == (2, -9)
    assert lost(chief) == 1
    # The chief alone converts.
    assert "Converting 6 cases" in chief.stderr and "Converting" not in other.stderr
    if twice:
        chief, other = train_both(tmp_path, "--resume", chief=killed.plan("validation", 1))
        assert (chief.code, other.code) == (-9, 2)
        assert lost(other) == 0
        # A signal is seen after the next update or validation batch.
        stop = killed.plan("update", 2, number="SIGTERM")
        check_stopped(train_both(tmp_path, "--resume", other=stop), tmp_path, step=3)
    stop = killed.plan("validation", 1, number="SIGTERM")
    check_stopped(train_both(tmp_path, "--resume", chief=stop), tmp_path, step=UPDATES)
    run = tmp_path / "runs" / "shared"
    if twice:
        run_program(command(tmp_path, "--resume"), env=NO_FIGURES).check_returncode()
    else:
        shutil.rmtree(tmp_path / "temporary-1")  # of who was killed
        finish_both(tmp_path, "--resume")
    shutil.rmtree(run / "tensorboard")  # each start writes files of its own
    shutil.copytree(alone / "tensorboard", run / "tensorboard")
    check_equal(run, alone)


def check_stopped(workers, folder, step):
    """All were stopped and the chief has saved that update of the second epoch."""
    for worker in workers:
        assert worker.code == 143, worker.stderr
        # TensorFlow may report a closed connection after it.
        assert "It ended after the current batch; --resume goes on there.\n" in worker.stderr
        assert not noise_of(worker.stderr), worker.stderr
    with np.load(folder / "runs" / "shared" / "checkpoints" / "state.npz") as state:
        progress = json.loads(str(state["progress"]))
    assert (progress["epochs"], progress["step"]) == (1, step)


def lost(worker):
    """The number of the worker that it has lost, by its only words about it."""
    found = re.fullmatch(
        r"error: Lost worker (\d) \(localhost:\d+\) of the 2 in TF_CONFIG, so this one \(worker "
        r"\d\) cannot go on: .*Start all of them again with --resume\.",
        worker.error,
    )
    assert found and "Traceback" not in worker.stderr, worker.stderr
    return int(found[1])
