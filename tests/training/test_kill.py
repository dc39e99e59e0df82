"""A run that is killed and resumed ends as one that never was, bit for bit."""

import os
import random
import signal

import numpy as np
import pytest

from tests.program import NO_FIGURES, run_program
from tests.training import killed
from tests.training.run_folders import files, history, weights

KILLS = int(os.environ.get("KERASSEG_TEST_KILLS", "1"))
"""At random moments; each costs a start of TensorFlow. `make test-all` kills more often."""
EVENTS_PER_EPOCH = 14
"""4 updates, a validation batch, the epoch's end, and before and after four files are renamed."""
# Everything that must be kept: slots, averages, running statistics, dropout's random states, the
# position in the schedule and in the data, the best score.
SETTINGS = (
    "data.phantom={cases: 6, shape: [18,24,22], seed: 5}",
    "split.test=0",
    "records.workers=1",
    "run.name=killed",
    "model={dimensions: 2, features: [4], bottleneck: 6, encoder_blocks: 1, decoder_blocks: 1, "
    "norm: batch, dropout: {rate: 0.3, place: everywhere}}",
    "pipeline={patch_size: [16,12], patches_per_volume: 2, validation_patches_per_volume: 2}",
    "optimizer={name: adamw, learning_rate: 0.01, ema: 0.9, clip_norm: 1.0}",
    f"training={{epochs: {1 + 3 * KILLS // 2}, batch_size: 2, gradient_accumulation: 2, "
    "steps_per_epoch: 8, precision: float32, deterministic: true, "
    "callbacks: [{tests.training.killed.Killed: {}}]}",
    "evaluation.overlays=0",
)


def train(folder, *arguments, plan=None):
    """Run train.py; its exit code and what it wrote to stderr."""
    roots = (f"run.root={folder}", f"records.root={folder.parent / 'store'}")
    environment = {**NO_FIGURES, **(plan or {})}
    done = run_program(["train.py", *SETTINGS, *roots, *arguments], env=environment)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "whole"
    code, stderr = train(folder)
    assert code == 0, stderr
    return folder / "killed"


def check_same(one, other):
    for name in ("last", "best"):
        ours, theirs = (weights(run / "checkpoints" / f"{name}.keras") for run in (one, other))
        assert ours.keys() == theirs.keys()
        for key, values in ours.items():
            assert np.array_equal(values, theirs[key]), f"{name}: {key}"
    with (
        np.load(one / "checkpoints" / "state.npz") as ours,
        np.load(other / "checkpoints" / "state.npz") as theirs,
    ):
        assert sorted(ours.files) == sorted(theirs.files)
        for key in ours.files:
            assert np.array_equal(ours[key], theirs[key]), key
    assert history(one) == history(other)
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()


@pytest.mark.all_only  # a run that was killed and equals another one shows it, too
def test_determinism_gives_the_same_bits_in_another_process(uninterrupted):
    code, stderr = train(uninterrupted.parent.with_name("again"))
    assert code == 0, stderr
    again = uninterrupted.parent.with_name("again") / "killed"
    check_same(again, uninterrupted)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(uninterrupted):
    chance = random.Random(KILLS)
    folder = uninterrupted.parent.with_name("cut")
    run, moments, epochs = folder / "killed", [], []
    for number in range(KILLS):
        # The first kill comes in the second epoch, others after few or many events.
        count = chance.randint(1, EVENTS_PER_EPOCH + 2) + (0 if number else EVENTS_PER_EPOCH)
        delay = chance.uniform(0.0, 0.1) if number % 2 else 0.0
        moments.append((count, round(delay, 3)))
        plan = killed.plan("any", count, delay=delay)
        code, stderr = train(folder, *(["--resume"] if number else []), plan=plan)
        assert code == -signal.SIGKILL, (moments, stderr)
        epochs.append(len(history(run)) if (run / "history.csv").exists() else 0)
    code, stderr = train(folder, "--resume")
    assert code == 0, (moments, stderr)
    assert epochs[-1] > 0, f"no kill came after an epoch: {moments}"
    check_same(run, uninterrupted)
    rows = history(run)
    assert len({row["loss"] for row in rows}) == len(rows), "it must have trained"
    assert files(run).keys() == files(uninterrupted).keys(), "nothing half written is left"
    print(f"{KILLS} kills at (event, delay) {moments}; rows of history.csv then: {epochs}")
