"""The formula in numbers, and a line that a config takes."""

import pytest

from kerasseg.config_file import load_experiment
from kerasseg.exploration.class_weights import suggest_class_weights

VOXELS = {"NCR": 100, "ED": 900, "ET": 400}


def test_weights_are_inverse_square_roots_with_mean_one():
    found = suggest_class_weights(VOXELS, "subregions", "subregions")
    assert found.shares == pytest.approx({"NCR": 1 / 14, "ED": 9 / 14, "ET": 4 / 14})
    # 1/10 : 1/30 : 1/20 = 6 : 2 : 3, of mean 11/3.
    assert found.weights == {"NCR": 1.64, "ED": 0.55, "ET": 0.82}
    assert found.values == "[1.64, 0.55, 0.82]"


def test_the_line_is_taken_as_an_override():
    found = suggest_class_weights(VOXELS, "subregions", "subregions")
    assert found.override == "loss.dice.class_weights=[1.64,0.55,0.82]"
    experiment = load_experiment(None, [found.override])
    assert experiment.class_weights == (1.64, 0.55, 0.82)


@pytest.mark.parametrize("classes, voxels", [("subregions", VOXELS), ("tumour", {"tumour": 5})])
def test_one_channel_needs_no_weights(classes, voxels):
    found = suggest_class_weights(voxels, classes, "binary")
    assert found.weights is None and found.absent == () and found.shares == {"tumour": 1}


def test_a_class_that_never_occurs_has_no_weight():
    found = suggest_class_weights({**VOXELS, "ET": 0}, "subregions", "subregions")
    assert found.weights is None and found.absent == ("ET",)
