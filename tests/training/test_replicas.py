"""Updates on several replicas (logical CPUs, in processes of their own) against those on one."""

import functools
import json

import numpy as np
import pytest

from kerasseg.training.step import FINITE, GRADIENT_NOT_FINITE, LOSS_NOT_FINITE
from tests.program import run_program

TOGETHER = (
    (
        *("same", "overflow", "clip", "not finite", "batch norm", "augmentation", "dropout"),
        "validation",
    ),
)
"""Groups that one process does."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that says what a group of `replicas_worker` found."""

    @functools.cache
    def ask(replicas, *groups):
        folder = str(tmp_path_factory.mktemp("replicas"))
        module = "tests.training.replicas_worker"
        ran = run_program(["-m", module, str(replicas), folder, *groups])
        assert ran.returncode == 0, ran.stderr[-3000:]
        return json.loads(ran.stdout.splitlines()[-1])

    def found(replicas, group):
        groups = next((each for each in TOGETHER if group in each), (group,))
        return ask(replicas, *groups)[group]

    return found


@pytest.mark.parametrize(
    ("replicas", "group", "name"),
    [
        (2, "same", "adamw, all at once"),
        # The whole fit accumulates and clips with SGD.
        pytest.param(2, "more", "sgd, accumulated, clipped", marks=pytest.mark.all_only),
        pytest.param(2, "more", "Keras's Muon, averaged, heads", marks=pytest.mark.all_only),
        pytest.param(2, "more", "lion, accumulated", marks=pytest.mark.all_only),
        pytest.param(3, "three", "adamw, all at once", marks=pytest.mark.all_only),
    ],
)
def test_replicas_that_share_the_batches_do_what_one_does_with_them(run, replicas, group, name):
    """Four updates with instance norm; Dice and its kin sum over the batch of all replicas."""
    found = run(replicas, group)[name]
    assert found["start"] == 0, "the same seed, the same network"
    assert found["moved"] > 0.005
    # Keras's Muon scales the update of a matrix up, and with it its last bits.
    limit = 3e-6 if "Muon" in name else 1e-6
    assert found["weights"] < limit and found["slots"] < limit
    assert ("averages" in found) == ("all at once" in name or "averaged" in name)
    assert found.get("averages", 0) < limit
    assert found["spread"] == 0, "all replicas have the same"
    assert found["failures"] == [FINITE, FINITE]
    several, one = found["logs"]
    assert several == pytest.approx(one, abs=1e-6) and 0 < one["dice"] < 1


@pytest.mark.parametrize(
    ("group", "batches"),
    [
        ("overflow", "3"),
        # test_optimizer and test_update have both on one device.
        pytest.param("overflow, single", "1", marks=pytest.mark.all_only),
    ],
)
def test_an_overflow_on_one_replica_leaves_everything_on_all_of_them_as_it_was(run, group, batches):
    """Weights, slots, averages and moving statistics; the updates around it are made as if it had
    not been."""
    found = run(2, group)
    assert list(found) == [batches], "batches per update"
    for case in found.values():
        states = [(15, 0, 1), (14, 1, 1), (14, 1, 2), (13, 2, 2), (13, 2, 3)]
        assert case["told"] == [
            {"failure": FINITE, "scale": 2.0**power, "skipped": skipped, "iterations": iterations}
            for power, skipped, iterations in states
        ]
        assert case["changes"][1::2] == [0, 0] and min(case["changes"][::2]) > 0.001
        assert case["from control"] < 1e-6
        assert np.isfinite(case["loss"]), "or something else was seen than the gradient"


def test_the_gradient_of_all_replicas_is_clipped(run):
    """And not that of each, of which the sum would be longer."""
    found = run(2, "clip")
    assert found["norm before"] > 1.5
    assert found["norm"] == pytest.approx(1.0, rel=1e-6)
    assert found["from expected"] < 1e-6


def test_what_is_not_finite_on_one_replica_is_told_and_changes_nothing_on_any(run):
    found = run(2, "not finite")
    assert len(found) == 6
    for name, told in found.items():
        expected = LOSS_NOT_FINITE if name.startswith("loss") else GRADIENT_NOT_FINITE
        assert told["failure"] == expected, name
        assert told["change"] == 0 and told["iterations"] == 0, name
        assert told["scale"] == 1


def test_batch_norm_sees_each_replica_s_part_by_itself(run):
    """The gradient is the mean of what each part alone gives, the moving statistics are the mean
    of those that each part alone leads to, on all replicas."""
    found = run(2, "batch norm")
    assert found["statistics"] < 1e-6 and found["weights"] < 1e-6
    assert min(found["moved"]) > 1e-3 and found["parts differ by"] > 0.1
    assert found["spread"] == 0


def test_each_replica_varies_its_part_of_the_batch_as_one_would(run):
    """pipeline.augment_on=device."""
    found = run(2, "augmentation")
    assert found["weights"] < 1e-6
    assert found["varied"] > 1e-4


def test_dropout_differs_between_replicas_and_the_saved_state_does_not_know(run):
    found = run(2, "dropout")
    assert found["as of Keras"] == 0, "on both replicas the same is dropped"
    assert found["varied"] > 0.1 and found["after updates"] > 0.1
    for ours, theirs in (found["kept"], found["as on one device"]):
        assert len(ours) > 1 and ours == theirs


@pytest.mark.parametrize(
    "group", ["validation", pytest.param("more validation", marks=pytest.mark.all_only)]
)
def test_scores_of_batches_that_cannot_be_shared_equally(run, group):
    """Also where one replica has only what fills up the batch."""
    found = run(2, group)
    assert len(found) == 2
    for name, (several, one, counted) in found.items():
        assert several == pytest.approx(one, rel=1e-6), name
        assert counted == pytest.approx({n: several[n] for n in counted}, rel=1e-6), name
        assert bool(counted) == (name in ("one less", "none"))
        assert len(set(several.values())) > 4


@pytest.mark.parametrize(
    ("policy", "scale"),
    [
        # An overflow has a test above, the whole fit below has all but the precision, and
        # test_training_model and test_bfloat16 learn in both on one device.
        pytest.param("mixed_float16", 2.0**15, marks=pytest.mark.all_only),
        pytest.param("mixed_bfloat16", 1, marks=pytest.mark.all_only),
    ],
)
def test_mixed_precision_learns_with_accumulation_clip_and_averages(run, policy, scale):
    found = run(2, policy)
    losses = found["losses"]
    assert losses[-1] < 0.9 * losses[0]
    told = {"failure": FINITE, "scale": scale, "skipped": 0, "iterations": len(losses)}
    assert found["told"] == told
    assert found["average differs by"] > 1e-4 and found["spread"] == 0


def test_a_whole_fit_on_two_replicas_is_that_on_one(run):
    """With accumulation, clipping, averages and nine validation patches in batches of four."""
    found = run(2, "fit")
    assert found["weights"] < 1e-5
    several, one = found["histories"]
    assert len(one) == 3 and one[-1]["loss"] < one[0]["loss"]
    for a, b in zip(several, one, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.all_only  # the whole fit of a U-Net goes the same way
def test_a_sam_on_embeddings_learns_on_two_replicas_what_it_does_on_one(run):
    """Its masks, and the IoU that it expects of them."""
    found = run(2, "sam")
    assert found["weights"] < 1e-5 and found["moved"] > 1e-3 and found["stores"] == 1
    several, one = found["histories"]
    assert len(one) == 1 and several == [pytest.approx(one[0], abs=1e-5)]


@pytest.mark.all_only  # test_workers_stopped resumes two workers, test_resume one device
def test_a_fit_on_two_replicas_that_is_resumed_is_the_whole_one(run):
    """Stopped within an epoch, with dropout, bit for bit."""
    found = run(2, "resumed fit")
    resumed, whole = found["histories"]
    assert found["weights"] == 0 and resumed == whole and len(whole) == 3
