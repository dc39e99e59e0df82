"""`kerasseg bench data`."""

import re

import pytest

from kerasseg.bench_data import DataSpeed, advice, bench_data
from tests.conftest import phantom_experiment
from tests.program import run_program

VARIED = "augment.transforms=[{flip: {}}, {spatial: {}}, {gamma: {}}]"
SMALL = ("pipeline.patch_size=[8,16,16]", VARIED, "pipeline.patches_per_volume=4")


def test_every_stage_is_measured_and_the_slowest_named(tmp_path, capsys):
    experiment = phantom_experiment(tmp_path, *SMALL)
    speed = bench_data(experiment, seconds=0.2)
    assert list(speed.stages) == ["read", "decode", "cut", "flip and warp", "augment"]
    assert speed.patches_per_second > 0 and sum(speed.stages.values()) > 0
    assert speed.megabytes_patch == pytest.approx(8 * 16 * 16 * (2 * 4 + 3) / 1e6)
    printed = capsys.readouterr().out
    assert f"Slowest    {speed.slowest}: " in printed
    shares = [int(s) for s in re.findall(r"(\d+)%", printed)]
    assert len(shares) == 5 and 97 <= sum(shares) <= 103


@pytest.mark.all_only  # the stages are measured above, the rest is one branch
def test_what_a_cache_reads_is_nothing(tmp_path, capsys):
    experiment = phantom_experiment(tmp_path, "pipeline.cache=memory")
    speed = bench_data(experiment, seconds=0.1)
    assert list(speed.stages) == ["decode", "cut"]
    assert speed.megabytes_read == 0.0
    assert "nothing read" in capsys.readouterr().out


def test_the_slowest_is_that_which_takes_most():
    assert DataSpeed(1.0, 1.0, 1.0, {"read": 0.1, "cut": 0.3, "augment": 0.2}).slowest == "cut"


@pytest.mark.parametrize(
    ("stage", "overrides", "words"),
    [
        ("read", (), "pipeline.patches_per_volume above 2, or pipeline.cache=memory"),
        ("decode", ("records.compression=zlib",), "pipeline.cache=disk"),
        ("decode", ("pipeline.cache=memory",), "patches_per_volume above 2"),
        ("flip and warp", (), "p_rotation"),
        ("augment", (), "pipeline.augment_on=device"),
        ("cut", (), "more cores"),
    ],
)
def test_the_advice_names_settings(stage, overrides, words, tmp_path):
    assert words in advice(phantom_experiment(tmp_path, *overrides), stage)
    if stage == "augment":
        moved = phantom_experiment(tmp_path, "pipeline.augment_on=device")
        assert "augment_on=device" not in advice(moved, stage)


def test_the_verb(tmp_path):
    command = ["-m", "kerasseg.cli", "bench", "data", "--seconds", "0.1"]
    small = [
        "data.phantom={cases: 6, shape: [16,18,20]}",
        "pipeline.patch_size=[8,16,16]",
        f"records.root={tmp_path / 'store'}",
    ]
    done = run_program([*command, *small])
    assert done.returncode == 0, done.stderr
    assert "Patches" in done.stdout and "Enough     for training steps of" in done.stdout
