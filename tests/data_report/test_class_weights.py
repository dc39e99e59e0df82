"""The formula in numbers, and a line that a config takes."""

import pytest

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.data_report.statistics import suggest_class_weights

VOXELS = {"NCR": 100, "ED": 900, "ET": 400}
LOSS = Experiment().loss


def test_weights_are_inverse_square_roots_with_mean_one():
    found = suggest_class_weights(VOXELS, "subregions", "subregions", LOSS)
    assert found.shares == pytest.approx({"NCR": 1 / 14, "ED": 9 / 14, "ET": 4 / 14})
    # 1/10 : 1/30 : 1/20 = 6 : 2 : 3, of mean 11/3.
    assert found.weights == {"NCR": 1.64, "ED": 0.55, "ET": 0.82}
    assert found.values == "[1.64, 0.55, 0.82]"


def test_regions_hold_the_classes_of_their_ids():
    found = suggest_class_weights(VOXELS, "subregions", "regions", LOSS)
    assert found.shares == pytest.approx({"WT": 1, "TC": 5 / 14, "ET": 4 / 14})


@pytest.mark.parametrize("target", ["subregions", "labels", "regions"])
@pytest.mark.parametrize(
    ("loss", "term"),
    [
        ("loss=[{dice: 1}]", 0),
        ("loss=[{focal: 1}, {top_k: 1}, {jaccard: 1}]", 2),
        # Of labels a cross-entropy has no weights that leave the background out.
        ("loss=[{cross_entropy: 1}, {boundary: 1}]", 1),
    ],
)
def test_the_line_is_taken_as_an_override_by_the_first_term_that_has_weights(target, loss, term):
    base = [f"model.target={target}", loss]
    before = load_experiment(None, base)
    found = suggest_class_weights(VOXELS, "subregions", target, before.loss)
    assert found.term == term and found.override.startswith(f"loss.{term}.weights=[")
    after = load_experiment(None, [*base, found.override])
    assert found.weights is not None and len(set(found.weights.values())) == 3
    assert after.loss[term].weights == tuple(found.weights.values())
    again = suggest_class_weights(VOXELS, "subregions", target, after.loss)
    assert found.in_config == dict.fromkeys(found.weights, 1.0)
    assert again.in_config == found.weights


def test_weights_in_the_config_that_name_the_background_are_shown_without_it():
    base = ["model.target=labels", "loss=[{dice: 1, weights: [0.1, 4, 1, 2]}]"]
    found = suggest_class_weights(VOXELS, "subregions", "labels", load_experiment(None, base).loss)
    assert found.in_config == {"NCR": 4, "ED": 1, "ET": 2}


def test_a_loss_without_class_weights_has_no_term_for_them():
    loss = load_experiment(None, ["loss=[{focal: 1}, {generalised_dice: 1}]"]).loss
    assert suggest_class_weights(VOXELS, "subregions", "subregions", loss).term is None


@pytest.mark.parametrize("classes, voxels", [("subregions", VOXELS), ("tumour", {"tumour": 5})])
def test_one_channel_needs_no_weights(classes, voxels):
    found = suggest_class_weights(voxels, classes, "binary", LOSS)
    assert found.weights is None and found.absent == () and found.shares == {"tumour": 1}


@pytest.mark.parametrize("target", ["subregions", "labels"])
def test_a_class_that_never_occurs_has_no_weight(target):
    found = suggest_class_weights({**VOXELS, "ET": 0}, "subregions", target, LOSS)
    assert found.weights is None and found.absent == ("ET",)
