"""What a search's folder says, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.errors import UserError
from kerasseg.tuning.report.read_search import choice_labels, format_range, read_search
from kerasseg.tuning.space import Parameter
from tests.tuning.report.searches import SPACE, a_failed_trial, a_trial, write_search


def test_what_is_read(tmp_path: Path) -> None:
    trials = [a_trial(2, 0.7), a_trial(0, 0.6), a_trial(1, float("nan")), a_failed_trial(3)]
    search = read_search(write_search(tmp_path / "s", trials))
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3]
    assert [trial.number for trial in search.ranked] == [2, 0, 1, 3]
    assert search.best and search.best.number == 2
    assert search.baseline and search.baseline.score == 0.6
    assert search.best.executions[0].run == "runs/trial_2"
    assert search.best.minutes == 3.0 and search.best.epochs == 4
    # Without an execution, the time from start to end.
    assert search.trials[3].minutes == 3.0
    by_name = {parameter.name: parameter for parameter in search.parameters}
    assert list(by_name) == list(SPACE)
    assert by_name["optimizer.learning_rate"].log
    assert by_name["optimizer.momentum"].when == {"optimizer.name": ("sgd",)}


def test_min_is_the_other_way_round(tmp_path: Path) -> None:
    trials = [a_trial(1, 0.7), a_trial(2, 0.2)]
    search = read_search(
        write_search(tmp_path / "s", trials, direction="min", objective="val_loss")
    )
    assert search.best and search.best.number == 2


def test_neither_the_baseline_nor_a_stopped_trial_is_the_best(tmp_path: Path) -> None:
    trials = [a_trial(0, 0.9), a_trial(1, 0.8, status="stopped"), a_trial(2, 0.3)]
    search = read_search(write_search(tmp_path / "s", trials))
    assert search.best and search.best.number == 2


def test_a_baseline_outside_of_the_space_widens_it(tmp_path: Path) -> None:
    baseline = a_trial(0, 0.5)
    baseline["values"] |= {"optimizer.learning_rate": 0.1, "optimizer.name": "muon"}
    search = read_search(write_search(tmp_path / "s", [baseline]))
    rate, name = search.parameters[:2]
    assert (rate.lowest, rate.highest) == (1e-5, 0.1)
    assert name.choices == ("adamw", "sgd", "muon")


def test_the_values_of_a_baseline_are_those_of_the_base(tmp_path: Path) -> None:
    space = SPACE | {"optimizer.ema": {"choice": [None, 0.9]}}
    folder = write_search(tmp_path / "s", [a_trial(0, 0.5, values={}), a_trial(1)], space)
    content = yaml.safe_load((folder / "search.yaml").read_text())
    content |= {
        "base": {"optimizer": {"name": "adamw"}, "training": {"batch_size": 3}},
        "experiment": {
            "optimizer": {"name": "sgd", "learning_rate": 0.002, "momentum": 0.9, "ema": None},
            "model": {"features": [8, 16, 32], "residual": False},
        },
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(content))
    baseline = read_search(folder).baseline
    assert baseline and baseline.values == {
        "optimizer.learning_rate": 0.002,
        "optimizer.name": "adamw",
        "model.features": [8, 16, 32],
        "model.residual": False,
        "training.batch_size": 3,
        "optimizer.ema": None,
    }


def test_a_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "s", [a_trial(1)])
    (folder / "trials" / ".0002.incomplete.json").write_text("{")
    assert len(read_search(folder).trials) == 1


def _broken(folder: Path, name: str, text: str) -> None:
    write_search(folder, [a_trial(1)])
    (folder / name).write_text(text)


def _searching(**search: Any) -> str:
    section = {"objective": "val_dice", "direction": "max", "space": SPACE, **search}
    return yaml.safe_dump({"search": section, "base": {}})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("search.yaml", "search: [", r"search\.yaml: not readable as YAML"),
        ("search.yaml", "other: 1", r"search\.yaml: expected a section search, found none"),
        ("search.yaml", _searching(objective=None), r"search\.yaml: search.objective: found null"),
        ("search.yaml", _searching(direction="up"), 'search.direction: found "up" .*max'),
        ("search.yaml", _searching(space={}), "search.space: found {}"),
        (
            "search.yaml",
            _searching(space={"a": {"float": [1]}}),
            r"search\.yaml: search.space: a: found .*1.*expected the lowest and the highest",
        ),
        (
            "search.yaml",
            _searching(space={"a": {"choice": "xy"}}),
            "search.space: a: found .*xy.*expected a choice",
        ),
        ("search.yaml", _searching(space={"a": 3}), "search.space: a: found 3"),
        (
            "search.yaml",
            _searching(space={"a": {"float": [0, 1], "log": True}}),
            "search.space: a: with log the lowest must be above 0",
        ),
        ("trials/0001.json", "{", r"trials/0001\.json: not readable as .*JSON.*Remove the file"),
        ("trials/0001.json", "[]", r"trials/0001\.json: not readable .*object"),
        ("trials/0001.json", "{}", r"0001\.json: not readable .*: trial_id: Field required"),
        (
            "trials/0001.json",
            json.dumps(a_trial(1) | {"status": "lost"}),
            "status: .*'completed', 'stopped', 'failed' or 'running'",
        ),
        (
            "trials/0001.json",
            json.dumps(a_trial(1) | {"score": "good"}),
            r"0001\.json: .*score: .*number",
        ),
        ("trials/0001.json", json.dumps(a_trial(1) | {"executions": [3]}), "executions.0: "),
    ],
)
def test_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    _broken(tmp_path / "s", name, text)
    with pytest.raises(UserError, match=words):
        read_search(tmp_path / "s")


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        read_search(tmp_path / "none")
    with pytest.raises(
        UserError, match=r"search\.yaml: there is no such file.*kerasseg tune wrote"
    ):
        read_search(tmp_path)
    with pytest.raises(UserError, match="no trial is there yet"):
        read_search(write_search(tmp_path / "s", []))


@given(
    st.lists(st.floats() | st.none(), min_size=1, max_size=12),
    st.sampled_from(["max", "min"]),
)
def test_ranking_of_any_scores(scores: list[float | None], direction: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        trials = [a_trial(number, score) for number, score in enumerate(scores, 1)]
        folder = write_search(Path(name) / "s", trials, direction=direction)
        search = read_search(folder)
    finite = [s for s in scores if s is not None and math.isfinite(s)]
    found = [trial.score for trial in search.ranked if trial.is_scored]
    assert found == sorted(finite, reverse=direction == "max")
    assert len(search.ranked) == len(scores)
    assert (search.best is None) == (not finite)


@given(
    st.floats(1e-8, 1e3),
    st.floats(1.5, 1e6),
    st.floats(0, 1),
    st.booleans(),
)
def test_scaled_is_linear_in_value_or_logarithm(
    low: float, ratio: float, share: float, log: bool
) -> None:
    high = low * ratio
    value = low * ratio**share if log else low + share * (high - low)
    parameter = Parameter("a.b", "float", lowest=low, highest=high, log=log)
    assert parameter.scaled([parameter.number(value)])[0] == pytest.approx(share, abs=1e-6)


def test_labels_of_long_choices_differ_and_are_narrow() -> None:
    lists = [[32, 64, 128, 256, 320, 320, n] for n in (8, 16)]
    middles = [[*range(100, 112), n, *range(100, 112)] for n in (8, 16)]
    words = ["a" * 90 + letter + "a" * 90 for letter in "bc"]
    for choices in (lists, middles, words):
        labels = choice_labels(Parameter("model.features", "choice", tuple(choices)))
        assert len(set(labels)) == 2
        assert max(len(line) for label in labels for line in label.splitlines()) <= 23
        assert max(len(label.splitlines()) for label in labels) <= 4
    assert choice_labels(Parameter("a", "choice", ("short", 1))) == ["short", "1"]


def test_the_text_of_ranges() -> None:
    when = {"b": ("sgd",), "c": (1, 2)}
    parameter = Parameter("a", "float", lowest=1e-5, highest=0.01, log=True, when=when)
    assert format_range(parameter) == "1e-05 to 0.01, logarithmic; if b is sgd; if c is 1 or 2"
    assert format_range(Parameter("c", "choice", ([1, 2], "x", None))) == "[1, 2], x, none"
    loss = [{"dice": 1.0}, {"focal": 0.5}]
    assert format_range(Parameter("loss", "choice", (loss, {"a": 1}))) == (
        "[dice: 1, focal: 0.5], {a: 1}"
    )


def test_true_is_not_one() -> None:
    parameter = Parameter("a", "choice", (1, True, [1]))
    assert [parameter.number(value) for value in (1, True, [1])] == [0, 1, 2]
    assert math.isnan(parameter.number(1.5))
