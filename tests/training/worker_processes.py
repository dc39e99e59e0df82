"""Two workers on this machine, each a process of its own, on ports that are free.

And the run that they share in test_workers and test_workers_stopped, which are two files so that
pytest-xdist runs them side by side.
"""

import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.program import NO_FIGURES, REPOSITORY, Program, run_program
from tests.training import killed
from tests.training.run_folders import files, history, weights

# Averages, accumulation and clipping, as none of them may depend on who has which part of a batch.
# SGD, because Adam makes steps of the learning rate out of gradients that are rounding errors.
SETTINGS = (
    "data.phantom={cases: 6, shape: [18,24,22], seed: 5}",
    "split={test: 0, validation: 0.34}",
    "records.workers=1",
    "run.name=shared",
    "model={dimensions: 2, features: [4], bottleneck: 6, encoder_blocks: 1, decoder_blocks: 1}",
    "pipeline={patch_size: [16,12], patches_per_volume: 2, validation_patches_per_volume: 3}",
    "optimizer={name: sgd, learning_rate: 0.3, ema: 0.8, clip_norm: 1.0}",
    "training={epochs: 2, batch_size: 4, gradient_accumulation: 2, steps_per_epoch: 8, "
    "precision: float32, validate_volumes_every: 1, "
    "callbacks: [{tests.training.killed.Killed: {}}]}",
    "evaluation.overlays=0",
)
UPDATES = 4
"""In each of the two epochs."""
_NOISE = re.compile(r"^[EWF]\d{4} |Traceback|WARNING|[Ee]rror", re.MULTILINE)
_NO_GPU = re.compile(r".*(failed call to cuInit|All log messages before absl).*\n")
"""TensorFlow 2.19 says this wherever GPUs are hidden."""


def noise_of(stderr: str) -> str:
    """The first word that somebody would take for a fault, or nothing."""
    found = _NOISE.search(_NO_GPU.sub("", stderr))
    return found[0] if found else ""


@dataclass
class Ended:
    """How a worker ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The lines for the user."""
        lines = self.stderr.splitlines()
        return "\n".join(line for line in lines if line.startswith("error: "))


def run_workers(
    folder: Path,
    arguments: Sequence[Sequence[str]],
    environments: Sequence[dict[str, str]] = ({}, {}),
) -> list[Ended]:
    """Run Python with `arguments` of each worker; every one has its own empty folder to stand in
    and another, both in `folder`, for its temporary files."""
    addresses = [f"localhost:{port}" for port in free_ports(len(arguments))]
    processes = []
    for index, own in enumerate(arguments):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        here, temporary = folder / f"worker-{index}", folder / f"temporary-{index}"
        for made in (here, temporary):
            made.mkdir(parents=True, exist_ok=True)
        environment = {
            **NO_FIGURES,
            "TMPDIR": str(temporary),
            "TF_CONFIG": json.dumps(config),
            **environments[index],
        }
        processes.append(Program(own, cwd=here, env=environment))
    try:
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
    return [Ended(p.wait(), p.stdout, p.stderr) for p in processes]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def command(folder, *more):
    roots = (f"run.root={folder / 'runs'}", f"records.root={folder / 'store'}")
    return [str(REPOSITORY / "train.py"), *SETTINGS, *roots, *more]


def train_both(folder, *more, chief=None, other=None):
    """Run both workers; `chief` and `other` are plans for one of them."""
    return run_workers(folder, [command(folder, *more)] * 2, (chief or {}, other or {}))


def finish_both(folder, *more):
    """Train with both workers to the end, look at all that they say, and return the run folder.

    The chief is held up after training for longer than TensorFlow's heartbeats: the other waits,
    and neither says a word about it.
    """
    chief, other = train_both(folder, *more, chief=killed.plan("end", 1, hold=12.0))
    assert (chief.code, other.code) == (0, 0), chief.stderr + other.stderr
    run = folder / "runs" / "shared"
    assert "(TF_CONFIG names 2 workers); batches of 4, 2 on each device" in chief.stdout
    assert not noise_of(chief.stderr + other.stderr), chief.stderr + other.stderr
    # The chief alone writes and speaks.
    lines = other.stdout.splitlines()
    assert len(lines) == 2 and lines[1].startswith("Worker 1 is done and waits for the chief")
    assert [path.name for path in run.parent.iterdir()] == ["shared"]
    for name in ("worker-0", "worker-1", "temporary-1"):
        assert not list((folder / name).iterdir())
    return run


def run_of_one_process(shared_once):
    """The run folder of the same training in one process."""

    def build(folder):
        run_program(command(folder), env=NO_FIGURES).check_returncode()

    return shared_once("run_of_one_process", build) / "runs" / "shared"


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
