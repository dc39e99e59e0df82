"""What a tune file may say of its space, and every message for what it may not."""

import pytest

from kerasseg.errors import UserError
from kerasseg.tuning.space import read_space

RATE = "optimizer.learning_rate"


def read(entries, tuner="random"):
    return read_space(entries, "tune.yaml", tuner)


def test_every_kind_of_range_has_its_values():
    space = {
        p.name: p
        for p in read(
            {
                "a.choice": {"choice": [[8, 16], [16, 32], None, "x"]},
                "a.boolean": {"boolean": True},
                "a.int": {"int": [1, 4]},
                "a.halves": {"float": [0, 0.5], "step": 0.1},
                "a.decades": {"float": [1e-4, 1e-1], "log": True, "step": 10},
                "a.powers": {"int": [2, 40], "log": True, "step": 2},
                "a.rate": {"float": [1e-4, 1e-1], "log": True},
            }
        )
    }
    assert space["a.choice"].finite == ([8, 16], [16, 32], None, "x")
    assert space["a.boolean"].finite == (False, True)
    assert space["a.int"].finite == (1, 2, 3, 4)
    assert space["a.halves"].finite == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert space["a.decades"].finite == (1e-4, 1e-3, 1e-2, 1e-1)
    assert space["a.powers"].finite == (2, 4, 8, 16, 32)
    assert space["a.rate"].finite is None and space["a.rate"].ends == (1e-4, 1e-1)
    assert space["a.powers"].ends == (2, 32), "what is tried, not what is written"


def test_conditions_come_after_what_they_depend_on():
    entries = {
        "c": {"boolean": True, "when": {"b": 2}},
        "b": {"int": [1, 3], "when": {"a": ["x", "y"]}},
        "a": {"choice": ["x", "y", "z"]},
    }
    assert [parameter.name for parameter in read(entries)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({RATE: 3}, "found 3 (whole number), expected {choice: [1, 2, 4]}"),
        ({RATE: {"flaot": [0, 1]}}, "found keys flaot, expected"),
        ({RATE: {"flaot": [0, 1]}}, "Did you mean float?"),
        ({RATE: {"float": [0, 1], "int": [0, 1]}}, "found both int and float"),
        ({RATE: {"choice": [1, 2], "log": True}}, "unknown option log of choice. Known: when."),
        ({RATE: {"float": [0, 1], "default": 1}}, "unknown option default of float"),
        ({RATE: {"choice": [1]}}, "expected a choice of two or more values"),
        ({RATE: {"choice": "ab"}}, 'found "ab" (text), expected a choice'),
        ({RATE: {"choice": [[1], [2], [1]]}}, "[1] is there twice"),
        ({RATE: {"boolean": False}}, "found boolean: false, expected {boolean: true}"),
        ({RATE: {"float": [1]}}, "the lowest and the highest of the numbers"),
        ({RATE: {"int": [1, 2.5]}}, "the lowest and the highest of the whole numbers"),
        ({RATE: {"float": [1, True]}}, "the lowest and the highest of the numbers"),
        ({RATE: {"float": [2, 1]}}, "the lowest, 2, must be under the highest, 1"),
        ({RATE: {"float": [0, 1], "log": 3}}, "log: found 3 (whole number), expected true"),
        ({RATE: {"float": [0, 1], "log": True}}, "with log the lowest must be above 0, found 0"),
        ({RATE: {"float": [0, 1], "step": 0}}, "step: found 0 (whole number)"),
        ({RATE: {"float": [1, 9], "step": 1, "log": True}}, "above 1, as log multiplies by it"),
        ({RATE: {"int": [1, 9], "step": 0.5}}, "expected one of whole numbers, above 0"),
        ({RATE: {"boolean": True, "when": 3}}, "when: found 3 (whole number), expected another"),
        ({RATE: {"boolean": True, "when": {"model.norm": 1}}}, "model.norm is not searched itself"),
        (
            {RATE: {"boolean": True, "when": {"a": 2}}, "a": {"float": [1, 3]}},
            "a is a float, of which no value comes twice",
        ),
        (
            {RATE: {"boolean": True, "when": {"a": 5}}, "a": {"choice": ["x", 2]}},
            'when: a: 5 is none of its values ("x", 2)',
        ),
        (
            {RATE: {"boolean": True, "when": {"a": 1}}, "a": {"boolean": True}},
            "1 is none of its values (false, true)",
        ),
        (
            {RATE: {"boolean": True, "when": {"a": 50}}, "a": {"int": [1, 20]}},
            "50 is none of its values (1 to 20)",
        ),
        ({RATE: {"boolean": True, "when": {"a": []}}, "a": {"int": [1, 2]}}, "names no value"),
        (
            {
                RATE: {"boolean": True, "when": {"a": 1}},
                "a": {"int": [1, 2], "when": {RATE: True}},
            },
            f"{RATE} and a depend on each other by when",
        ),
        ({"run.seed": {"int": [1, 3]}}, "run.seed cannot be searched: trials are named"),
        ({"data.modalities": {"choice": [1, 2]}}, "share one record store"),
        ({"training.epochs": {"int": [1, 3]}}, "set search.epochs instead"),
        ({"training.early_stopping_patience": {"int": [1, 3]}}, "set search.patience instead"),
        ({"metrics.tolerance": {"float": [1, 5]}}, "no score of the training depends on it"),
        ({"split.fold": {"int": [0, 3]}}, "scores on different patients cannot be compared"),
    ],
)
def test_what_is_wrong_is_said(entries, words):
    with pytest.raises(UserError) as error:
        read(entries)
    message = str(error.value)
    assert words in message and message.startswith("tune.yaml: search.space: ")


def test_a_grid_needs_steps():
    for entry in ({"float": [0, 1]}, {"int": [1, 64], "log": True}):
        with pytest.raises(UserError, match="a grid needs to know which values: give a step"):
            read({RATE: entry}, "grid")
    read({RATE: {"float": [0, 1], "step": 0.5}, "a": {"int": [1, 4]}}, "grid")
