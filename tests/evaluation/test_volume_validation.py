"""Whole volumes in the logs of every n-th epoch."""

import csv

import keras
import pytest

from kerasseg.config.experiment import EvaluationSettings
from kerasseg.evaluation.evaluate import VolumeValidation, dice_of_cases
from kerasseg.evaluation.scores import mean_scores
from kerasseg.figures.runs import draw_training_curves
from kerasseg.inference.predictor import Predictor
from kerasseg.run import read_history
from kerasseg.run_experiment import build_network
from kerasseg.training.callbacks import History
from tests.conftest import phantom_experiment


@pytest.fixture
def validation(phantom_store, tmp_path):
    """A callback on an untrained network, and its cases."""
    experiment = phantom_experiment(tmp_path)
    keras.utils.set_random_seed(0)
    network = build_network(experiment)
    head = network.get_layer("head")
    head.set_weights([w * 4 for w in head.get_weights()])
    settings = EvaluationSettings(overlap=0.0, window_batch=8)
    predictor = Predictor(network, experiment.pipeline, settings, target="subregions")
    cases = list(phantom_store.rows)[:2]
    return VolumeValidation(predictor, phantom_store, cases, every=2), cases


def test_every_second_epoch_has_the_mean_dice_of_whole_cases(validation, phantom_store):
    callback, cases = validation
    logs = {"val_dice": 0.5}
    callback.on_epoch_end(0, logs)
    assert logs == {"val_dice": 0.5}
    callback.on_epoch_end(1, logs)
    scores = dice_of_cases(callback.predictor, phantom_store, cases)
    expected = {f"val_volume_dice_{name}": value for name, value in mean_scores(scores).items()}
    assert logs == {"val_dice": 0.5, **expected}
    assert 0 < expected["val_volume_dice_WT"] < 1


def test_history_and_curves_take_epochs_with_and_without(tmp_path):
    class Model:
        optimizer = keras.optimizers.SGD(0.1)

    history = History(tmp_path / "history.csv")
    history.set_model(Model())
    names = ("loss", "val_loss", *(f"val_dice{c}" for c in ("", "_NCR", "_ED", "_ET")))
    for epoch in range(3):
        logs = dict.fromkeys(names, 0.5)
        if epoch == 1:
            logs["val_volume_dice_ET"] = 0.75
        history.on_epoch_end(epoch, logs)
    with (tmp_path / "history.csv").open() as file:
        assert [row["val_volume_dice_ET"] for row in csv.DictReader(file)] == ["", "0.75", ""]
    picture = tmp_path / "curves.png"
    figure = draw_training_curves(read_history(history.path), 2, "subregions")
    figure.savefig(picture)
    assert picture.stat().st_size > 10_000
