"""The forest finds what was planted, and says nothing from too little."""

from pathlib import Path

import numpy as np
import pytest

from kerasseg.tuning.report.importance import (
    describe_importance,
    encode,
    filled,
    parameter_importance,
    why_no_model,
)
from kerasseg.tuning.report.read_search import read_search
from tests.tuning.report.searches import SPACE, a_trial, planted_trials, write_search


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of them, each a forest. The first test has all."""
    monkeypatch.setattr("kerasseg.tuning.report.importance._RESAMPLES", 10)


def test_the_planted_setting_is_found(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path / "s", planted_trials(40)))
    importance = parameter_importance(encode(search))
    first, *others = importance.shares
    assert first == "optimizer.learning_rate"
    mean, low, high = importance.shares[first]
    assert 0.3 < low < mean < high
    assert all(importance.shares[name][0] < 0.1 for name in others)
    assert importance.explained > 0.4
    assert "Estimated from 40 trials" in describe_importance(importance)


@pytest.mark.usefixtures("few_resamples")
def test_a_conditional_setting_does_not_take_the_credit(tmp_path: Path) -> None:
    trials = planted_trials(40)
    for trial in trials:
        trial["score"] = 0.5 + 0.2 * (trial["values"]["optimizer.name"] == "sgd")
    search = read_search(write_search(tmp_path / "s", trials))
    importance = parameter_importance(encode(search))
    assert importance == parameter_importance(encode(search))
    assert next(iter(importance.shares)) == "optimizer.name"
    assert importance.shares["optimizer.name"][0] > 0.6
    assert importance.shares["optimizer.momentum"][0] < 0.1


@pytest.mark.usefixtures("few_resamples")
def test_noise_is_called_noise(tmp_path: Path) -> None:
    trials = planted_trials(14)
    scores = np.random.default_rng(3).normal(size=14)
    for trial, score in zip(trials, scores.tolist(), strict=True):
        trial["score"] = score
    importance = parameter_importance(encode(read_search(write_search(tmp_path / "s", trials))))
    assert importance.explained < 0
    assert "the bars mean nothing yet" in describe_importance(importance)


@pytest.mark.all_only  # a sign
def test_min_gives_the_same(tmp_path: Path) -> None:
    trials = planted_trials(30)
    up = parameter_importance(encode(read_search(write_search(tmp_path / "a", trials))))
    for trial in trials:
        trial["score"] = -trial["score"]
    down = read_search(write_search(tmp_path / "b", trials, direction="min"))
    shares = parameter_importance(encode(down)).shares
    for name, (mean, _, _) in up.shares.items():
        assert shares[name][0] == pytest.approx(mean, abs=1e-6)


def test_too_few_and_all_the_same(tmp_path: Path) -> None:
    few = read_search(write_search(tmp_path / "few", planted_trials(9)))
    assert why_no_model(few).startswith("9 completed trials of different settings are too few")
    same = read_search(write_search(tmp_path / "same", [a_trial(n) for n in range(1, 12)]))
    assert "have the same score" in why_no_model(same)
    enough = read_search(write_search(tmp_path / "enough", planted_trials(10)))
    assert why_no_model(enough) == ""


@pytest.mark.usefixtures("few_resamples")
def test_epochs_of_hyperband_are_no_setting(tmp_path: Path) -> None:
    """Scores of a bracket with more epochs are all greater; continued trials do not count."""
    trials = planted_trials(24)
    for number, trial in enumerate(trials):
        trial["epochs_to"] = 9 if number % 2 else 3
        trial["score"] += 5.0 * (number % 2)
    again = [
        a_trial(25, 9.0, epochs_to=27, continued_from="0001"),
        a_trial(26, 9.0, epochs_to=81),
    ]
    encoded = encode(read_search(write_search(tmp_path / "s", trials + again)))
    assert len(encoded.scores) == 24
    assert np.ptp(encoded.scores) < 1
    assert next(iter(parameter_importance(encoded).shares)) == "optimizer.learning_rate"


def test_settings_not_in_use_are_filled_from_those_in_use(tmp_path: Path) -> None:
    encoded = encode(read_search(write_search(tmp_path / "s", planted_trials(20))))
    column = list(SPACE).index("optimizer.momentum")
    missing = np.isnan(encoded.table[:, column])
    assert 0 < missing.sum() < 20
    table = filled(encoded, np.random.default_rng(0))
    assert set(table[missing, column]) <= set(encoded.table[~missing, column])
    assert np.array_equal(table[~missing], encoded.table[~missing])
