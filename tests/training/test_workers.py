"""train.py in two processes under TF_CONFIG: equal to one process, and killed, and stopped."""

import json
import re
import shutil

import numpy as np
import pytest

from tests.conftest import write_brats
from tests.program import REPOSITORY, run_program
from tests.training import killed
from tests.training.run_folders import files, history, weights
from tests.training.worker_processes import run_workers

# Averages, accumulation and clipping, as none of them may depend on who has which part of a batch.
# SGD, because Adam makes steps of the learning rate out of gradients that are rounding errors.
SETTINGS = (
    "data.phantom={cases: 6, shape: [18,24,22], seed: 5}",
    "split={test: 0, validation: 0.34}",
    "records.workers=1",
    "run.name=shared",
    "model={dimensions: 2, features: [4,6], bottleneck: 8, encoder_blocks: 1, decoder_blocks: 1}",
    "pipeline={patch_size: [16,12], patches_per_volume: 2, validation_patches_per_volume: 3}",
    "optimizer={name: sgd, learning_rate: 0.3, ema: 0.8, clip_norm: 1.0}",
    "training={epochs: 2, batch_size: 4, gradient_accumulation: 2, steps_per_epoch: 8, "
    "precision: float32, validate_volumes_every: 1, "
    "callbacks: [{tests.training.killed.Killed: {}}]}",
    "evaluation.overlays=0",
)
UPDATES = 4
"""In each of the two epochs."""
NOISE = re.compile(r"^[EWF]\d{4} |Traceback|WARNING|[Ee]rror", re.MULTILINE)


def command(folder, *more):
    roots = (f"run.root={folder / 'runs'}", f"records.root={folder / 'store'}")
    return [str(REPOSITORY / "train.py"), *SETTINGS, *roots, *more]


def train(folder, *more, chief=None, other=None):
    """Run both workers; `chief` and `other` are plans for one of them."""
    return run_workers(folder, [command(folder, *more)] * 2, (chief or {}, other or {}))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run_program(command(folder)).check_returncode()
    return folder / "runs" / "shared"


def check_equal(run, alone):
    for name in ("last", "best"):
        ours, theirs = (weights(r / "checkpoints" / f"{name}.keras") for r in (run, alone))
        assert ours.keys() == theirs.keys()
        for key, values in ours.items():
            np.testing.assert_allclose(values, theirs[key], rtol=0, atol=1e-6, err_msg=key)
    ours, theirs = history(run), history(alone)
    assert len(ours) == 2 and "val_volume_dice_mean" in ours[0]
    assert ours[1]["val_loss"] < ours[0]["val_loss"] - 0.03, "it must have moved far"
    for one, other in zip(ours, theirs, strict=True):
        # Dice over a batch depends on which patches are in it, and in validation the workers' are
        # others; the scores, which are counted over all voxels of the epoch, are the same.
        assert one.pop("val_loss") == pytest.approx(other.pop("val_loss"), rel=0.01)
        assert one == pytest.approx(other, abs=1e-5)
    assert files(run) == files(alone)


@pytest.mark.slow
def test_two_workers_equal_one_process(alone, tmp_path):
    """The chief is held up after training for longer than TensorFlow's heartbeats: the other
    waits, and neither says a word about it."""
    chief, other = train(tmp_path, chief=killed.plan("end", 1, hold=15.0))
    assert (chief.code, other.code) == (0, 0), chief.stderr + other.stderr
    run = tmp_path / "runs" / "shared"
    check_equal(run, alone)
    assert "(TF_CONFIG names 2 workers); batches of 4, 2 on each device" in chief.stdout
    assert not NOISE.search(chief.stderr + other.stderr), chief.stderr + other.stderr
    # The chief alone converts, writes and speaks.
    assert "Converting 6 cases" in chief.stderr and "Converting" not in other.stderr
    lines = other.stdout.splitlines()
    assert len(lines) == 2 and lines[1].startswith("Worker 1 is done and waits for the chief")
    assert [path.name for path in run.parent.iterdir()] == ["shared"]
    for name in ("worker-0", "worker-1", "temporary-1"):
        assert not list((tmp_path / name).iterdir())


@pytest.mark.slow
def test_killed_stopped_and_resumed_equals_one_process(alone, tmp_path):
    """Worker 1 is killed in an update, the chief in a validation; then SIGTERM, to worker 1 in the
    middle of an epoch and to the chief in its validation; one process ends what they began."""
    chief, other = train(tmp_path, other=killed.plan("update", UPDATES + 2))
    assert (chief.code, other.code) == (2, -9)
    assert lost(chief) == 1
    chief, other = train(tmp_path, "--resume", chief=killed.plan("validation", 1))
    assert (chief.code, other.code) == (-9, 2)
    assert lost(other) == 0
    # A signal is seen after the next update or validation batch.
    stop = killed.plan("update", 2, number="SIGTERM")
    check_stopped(train(tmp_path, "--resume", other=stop), tmp_path, step=3)
    stop = killed.plan("validation", 1, number="SIGTERM")
    check_stopped(train(tmp_path, "--resume", chief=stop), tmp_path, step=UPDATES)
    run_program(command(tmp_path, "--resume")).check_returncode()
    run = tmp_path / "runs" / "shared"
    shutil.rmtree(run / "tensorboard")  # each start writes files of its own
    shutil.copytree(alone / "tensorboard", run / "tensorboard")
    check_equal(run, alone)


def check_stopped(workers, folder, step):
    """All were stopped and the chief has saved that update of the second epoch."""
    for worker in workers:
        assert worker.code == 143, worker.stderr
        assert worker.stderr.endswith("After the batch in progress; --resume goes on there.\n")
        assert not NOISE.search(worker.stderr), worker.stderr
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


@pytest.mark.slow
def test_different_data_are_refused_by_both(tmp_path, phantoms):
    """Each machine has scans and a store of its own; of one case the scans differ."""
    for index in range(2):
        scans = tmp_path / f"worker-{index}" / "scans"
        write_brats(scans, "BraTS2021_00000", phantoms[0])
        write_brats(scans, "BraTS2021_00001", phantoms[1 + index])
    data = ("data.layout=brats_nifti", "data.root=scans", "records.root=store")
    settings = [s for s in SETTINGS if not s.startswith(("data.", "split="))]
    arguments = [str(REPOSITORY / "train.py"), *settings, *data, f"run.root={tmp_path / 'runs'}"]
    for worker in run_workers(tmp_path, [arguments] * 2):
        assert worker.code == 2
        assert "do not have the same data" in worker.error
        assert "Traceback" not in worker.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_different_configs_are_refused_by_both(tmp_path):
    commands = [command(tmp_path), command(tmp_path, "model.features=[4,8]")]
    for worker in run_workers(tmp_path, commands):
        assert worker.code == 2
        assert "do not have the same config" in worker.error
        assert "Traceback" not in worker.stderr
    assert not (tmp_path / "store").exists() and not (tmp_path / "runs").exists()
