"""The space as KerasTuner has it, and its values back."""

import numpy as np

from kerasseg.tuning.space import hyperparameters, plain_values, read_space

ENTRIES = {
    "o.name": {"choice": ["adam", "sgd"]},
    "o.momentum": {"float": [0.5, 0.9], "when": {"o.name": "sgd"}},
    "o.rate": {"float": [1e-4, 1e-2], "log": True},
    "m.features": {"choice": [[8, 16], [16, 32], None]},
    "m.deep": {"boolean": True},
    "m.width": {"int": [1, 1000], "log": True, "when": {"m.deep": True}},
    "m.levels": {"int": [3, 5], "when": {"m.features": [[8, 16], None]}},
}


def test_values_are_drawn_with_their_conditions_and_come_back_as_they_were_written():
    space = read_space(ENTRIES, "tune.yaml", "random")
    seen = {parameter.name: set() for parameter in space}
    for seed in range(60):
        hp = hyperparameters(space)
        hp.values = {}
        for index, parameter in enumerate(hp.space):
            if hp.is_active(parameter):
                hp.values[parameter.name] = parameter.random_sample(seed * 100 + index)
        values = plain_values(space, hp.values | {"tuner/epochs": 3})
        assert ("o.momentum" in values) == (values["o.name"] == "sgd")
        assert ("m.width" in values) == values["m.deep"]
        assert ("m.levels" in values) == (values["m.features"] != [16, 32])
        assert 1e-4 <= values["o.rate"] <= 1e-2 and values.get("m.width", 1) in range(1, 1001)
        for name, value in values.items():
            seen[name].add(str(value))
    assert seen["m.features"] == {"[8, 16]", "[16, 32]", "None"}
    assert seen["m.levels"] == {"3", "4", "5"} and seen["m.deep"] == {"True", "False"}
    assert len(seen["o.rate"]) > 50


def test_single_precision_on_the_way_changes_no_value():
    space = read_space({"o.rate": {"float": [1.2e-4, 0.87654321], "log": True}}, "t", "random")
    for value in [*np.geomspace(1.2e-4, 0.87654321, 2000), 1.2e-4, 0.87654321]:
        at_chief = plain_values(space, {"o.rate": float(value)})
        at_worker = plain_values(space, {"o.rate": float(np.float32(value))})
        assert at_chief == at_worker
        assert 1.2e-4 <= at_chief["o.rate"] <= 0.87654321
