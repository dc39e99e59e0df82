"""A run that is resumed equals one that was never stopped, with every optimiser and schedule."""

import csv
import dataclasses
import shutil

import keras
import numpy as np
import pytest

from kerasseg.experiment import build_network
from kerasseg.models.encoder_layers import encoder_layers
from kerasseg.pipeline.batches import validation_batches
from kerasseg.records.split import Split
from kerasseg.training.callbacks.save_state import SaveState
from kerasseg.training.fit import compile_for_training, fit
from kerasseg.training.state import FILE_NAME
from tests.conftest import phantom_experiment

QUICK = (
    "model.dimensions=2",
    "pipeline.patch_size=[16,12]",
    "pipeline.slices.keep=tumour",
    "pipeline.validation_patches_per_volume=4",
    "model.features=[4]",
    "model.bottleneck=6",
    "model.encoder_blocks=1",
    "model.decoder_blocks=1",
    "training.batch_size=4",
    "training.steps_per_epoch=4",
)
PEAK = 0.01


def prepare(folder, store, *options):
    experiment = phantom_experiment(folder, *QUICK, *options)
    cases = list(store.rows)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(experiment.run.seed)
    network = build_network(experiment)
    return experiment, network, store, Split(tuple(cases[:3]), tuple(cases[3:5]), ()), run


def history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def run_whole_and_resumed(tmp_path, store, after, *options):
    """The jobs of a run of all epochs and of one that is resumed from its files of epoch `after`;
    both are done."""
    whole = prepare(tmp_path / "whole", store, *options)
    cut = tmp_path / "cut" / "run"

    class CopyFolder(SaveState):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch + 1 == after:
                shutil.copytree(whole[-1], cut)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerasseg.training.fit.SaveState", CopyFolder)
        done = fit(*whole)
    assert len(history(cut)) == after
    shutil.copytree(cut, tmp_path / "stopped")
    resumed = prepare(tmp_path / "cut", store, *options)
    again = fit(*resumed, resume=True)
    assert again.best_score == pytest.approx(done.best_score, abs=1e-5)
    assert dataclasses.replace(again, best_score=done.best_score) == done
    assert done.epochs == whole[0].training.epochs
    return whole, resumed


def check_equal(whole, resumed):
    """Same weights, state and history."""
    for a, b in zip(resumed[1].weights, whole[1].weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=a.path)
    states = [np.load(job[-1] / "checkpoints" / FILE_NAME) for job in (resumed, whole)]
    assert states[0].files == states[1].files
    for name in states[0].files:
        if name != "progress":
            np.testing.assert_allclose(states[0][name], states[1][name], atol=1e-5, err_msg=name)
    rows = [history(job[-1]) for job in (resumed, whole)]
    for a, b in zip(*rows, strict=True):
        assert a["learning_rate"] == b["learning_rate"]
        for name in ("loss", "val_loss", "val_dice"):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-5)
    return [float(row["learning_rate"]) for row in rows[0]]


def load(run, name="last"):
    return keras.saving.load_model(run / "checkpoints" / f"{name}.keras")


def test_averaged_weights_are_validated_and_saved_and_the_trained_ones_go_on(
    phantom_store, tmp_path
):
    """SGD with Nesterov's momentum on a polynomial, with averages and accumulation."""
    options = (
        "optimizer={name: sgd, schedule: polynomial, learning_rate: 0.01, warmup_epochs: 1, "
        "ema: 0.9, clip_norm: 1.0}",
        "training={epochs: 4, gradient_accumulation: 2, batch_size: 4, steps_per_epoch: 4}",
    )
    whole, resumed = run_whole_and_resumed(tmp_path, phantom_store, 2, *options)
    check_equal(whole, resumed)
    experiment, network, store, split, run = whole
    saved = load(run)
    trained = [v.numpy() for v in network.trainable_variables]
    averaged = [v.numpy() for v in saved.trainable_variables]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(trained, averaged, strict=True))
    with np.load(run / "checkpoints" / FILE_NAME) as state:
        kept = [state[name] for name in state.files if name != "progress"]
    for values in (trained, averaged):
        for value in values:
            assert any(k.shape == value.shape and np.array_equal(k, value) for k in kept)
    network.set_weights(saved.get_weights())
    model = compile_for_training(experiment, network, 4)
    validation = validation_batches(
        store,
        split.validation,
        experiment.pipeline,
        target=experiment.model.target,
        batch_size=4,
        seed=0,
    )
    scores = model.evaluate(validation, verbose=0, return_dict=True)
    assert scores["dice"] == pytest.approx(float(history(run)[-1]["val_dice"]), abs=1e-5)
    assert scores["loss"] == pytest.approx(float(history(run)[-1]["val_loss"]), abs=1e-5)


def test_a_plateau_is_counted_on(phantom_store, tmp_path):
    """A rate too small to change a score: it falls after every second epoch, to a tenth at most.

    Resumed after epoch 2, in the middle of the first wait.
    """
    options = (
        "optimizer={name: adam, schedule: plateau, learning_rate: 1.0e-9, plateau_patience: 2, "
        "plateau_factor: 0.2, final_fraction: 0.1}",
        "training.epochs=6",
    )
    rates = check_equal(*run_whole_and_resumed(tmp_path, phantom_store, 2, *options))
    np.testing.assert_allclose(np.array(rates) / 1e-9, [1, 1, 1, 0.2, 0.2, 0.1], rtol=1e-5)


def test_a_frozen_encoder_is_released_after_a_resume(phantom_store, tmp_path):
    """Lion in steps, averages, BatchNorm; frozen for three epochs, resumed after the second."""
    options = (
        "optimizer={name: lion, schedule: step, step_epochs: [3], learning_rate: 0.001, "
        "warmup_epochs: 0, encoder_factor: 0.5, ema: 0.9}",
        "training={epochs: 4, freeze_encoder_epochs: 3, batch_size: 4, steps_per_epoch: 4, "
        "gradient_accumulation: 1}",
        "model.norm=batch",
    )
    whole, resumed = run_whole_and_resumed(tmp_path, phantom_store, 2, *options)
    rates = check_equal(whole, resumed)
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)
    start = prepare(tmp_path / "start", phantom_store, *options)[1]
    stopped = load(tmp_path / "stopped")
    frozen = {v.path for layer in encoder_layers(start) for v in layer.weights}
    assert frozen
    for a, b, c in zip(start.weights, stopped.weights, resumed[1].weights, strict=True):
        assert np.array_equal(a, b) == (a.path in frozen), a.path
        assert not np.array_equal(b, c), a.path


def test_heads_and_dropout_go_on(phantom_store, tmp_path):
    """Muon with warm restarts; the heads are in the state, and not in the saved network."""
    options = (
        "optimizer={name: muon, schedule: cosine_restarts, restart_epochs: 1, "
        "learning_rate: 0.01, warmup_epochs: 0, encoder_factor: 0.1}",
        "training.epochs=3",
        "model.features=[4,4]",
        "model.deep_supervision=1",
        "model.dropout={rate: 0.5, place: everywhere}",
        "model.target=labels",
    )
    whole, resumed = run_whole_and_resumed(tmp_path, phantom_store, 1, *options)
    check_equal(whole, resumed)
    saved = load(resumed[-1])
    assert len(saved.outputs) == 1 and saved.output_shape == (None, None, None, 4)
    assert not any("head_2" in layer.name for layer in saved.layers)
    losses = [float(row["loss"]) for row in history(resumed[-1])]
    assert losses[-1] < losses[0]
