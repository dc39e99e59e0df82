"""A run that is resumed equals one that was never stopped, with every optimiser and schedule."""

import csv
import functools
import json
import shutil
import signal

import keras
import numpy as np
import pytest

from kerasseg.models.unet import encoder_layers
from kerasseg.pipeline.batches import validation_batches
from kerasseg.records.splits import Split
from kerasseg.run_experiment import build_network
from kerasseg.training.callbacks import Stopped
from kerasseg.training.fit import compile_for_training, fit
from kerasseg.training.state import FILE_NAME, save_state
from tests.conftest import phantom_experiment
from tests.training.ask_to_stop import AskToStop

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

    def save_and_copy(path, model, progress, **options):
        save_state(path, model, progress, **options)
        if progress.epochs == after:
            shutil.copytree(whole[-1], cut)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kerasseg.training.fit.save_state", save_and_copy)
        done = fit(*whole)
    assert len(history(cut)) == after
    shutil.copytree(cut, tmp_path / "stopped")
    resumed = prepare(tmp_path / "cut", store, *options)
    assert fit(*resumed, state=state_of(resumed)) == done
    assert done.epochs == whole[0].training.epochs
    return whole, resumed


def state_of(job):
    return job[-1] / "checkpoints" / FILE_NAME


def check_equal(whole, resumed):
    """Same weights, state, checkpoints and history, bit for bit; the learning rates."""
    for a, b in zip(resumed[1].weights, whole[1].weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    states = [np.load(state_of(job)) for job in (resumed, whole)]
    assert states[0].files == states[1].files
    for name in states[0].files:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)
    for name in ("best", "last"):
        saved = [load(job[-1], name).weights for job in (resumed, whole)]
        for a, b in zip(*saved, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{name} {a.path}")
    rows = history(resumed[-1])
    assert rows == history(whole[-1])
    return [float(row["learning_rate"]) for row in rows]


def load(run, name="last"):
    return keras.saving.load_model(run / "checkpoints" / f"{name}.keras")


ONCE = "{name: adamw, schedule: cosine_restarts, restart_epochs: 2, warmup_epochs: 1}"


def with_all(optimizer):
    """Return options with averages, clipping, dropout and BatchNorm, for a run of two epochs.

    test_kill and the tests of two workers accumulate batches.
    """
    return (
        f"optimizer={optimizer}",
        "optimizer.ema=0.9",
        "optimizer.clip_norm=1.0",
        "optimizer.learning_rate=0.003",
        "training={epochs: 2, gradient_accumulation: 1, batch_size: 2, steps_per_epoch: 4}",
        "model.dropout={rate: 0.3, place: everywhere}",
        "model.norm=batch",
    )


@pytest.fixture(scope="module")
def whole_run(phantom_store, tmp_path_factory):
    """A function that trains with such options, once for each optimiser.

    It returns the job and what its fit returned.
    """

    @functools.cache
    def trained(optimizer):
        folder = tmp_path_factory.mktemp("whole")
        job = prepare(folder, phantom_store, *with_all(optimizer))
        return job, fit(*job)

    return trained


def test_averaged_weights_are_validated_and_saved(whole_run):
    (experiment, network, store, split, run), _ = whole_run(ONCE)
    saved = load(run)
    trained = [v.numpy() for v in network.trainable_variables]
    averaged = [v.numpy() for v in saved.trainable_variables]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(trained, averaged, strict=True))
    with np.load(run / "checkpoints" / FILE_NAME) as state:
        kept = [state[name] for name in state.files if name != "progress"]
    for values in (trained, averaged):
        for value in values:
            assert any(k.shape == value.shape and np.array_equal(k, value) for k in kept)
    network = build_network(experiment)
    network.set_weights(saved.get_weights())
    model = compile_for_training(experiment, network, 2)
    validation = validation_batches(
        store,
        split.validation,
        experiment.pipeline,
        target=experiment.model.target,
        batch_size=2,
        seed=0,
    )
    scores = model.evaluate(validation, verbose=0, return_dict=True)
    assert scores["dice"] == pytest.approx(float(history(run)[-1]["val_dice"]), abs=1e-7)
    assert scores["loss"] == pytest.approx(float(history(run)[-1]["val_loss"]), abs=1e-7)


@pytest.mark.all_only  # test_reduce_on_plateau counts in a Progress, test_state saves all of it
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


@pytest.mark.all_only  # test_freeze_encoder resumes frozen runs, too
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


@pytest.mark.all_only  # dropout goes on in the last test, heads are weights as others
def test_heads_and_dropout_go_on(phantom_store, tmp_path):
    """Keras's Muon with warm restarts; the heads are in the state, and not in the saved network."""
    options = (
        "optimizer={name: keras.optimizers.Muon, schedule: cosine_restarts, restart_epochs: 1, "
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


def test_a_signal_after_the_last_batch_is_not_lost(phantom_store, tmp_path, monkeypatch):
    """It comes in the callbacks of the last epoch, behind which no batch looks for it."""
    job = prepare(tmp_path, phantom_store)

    def run_epochs(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("kerasseg.training.fit.run_epochs", run_epochs)
    with pytest.raises(Stopped) as stopped:
        fit(*job)
    assert stopped.value.number == signal.SIGTERM


MIDDLE, LAST_UPDATE, VALIDATION = (1, "train", 1), (1, "train", 3), (1, "test", 0)
UPDATES_DONE = {MIDDLE: 2, LAST_UPDATE: 4, VALIDATION: 4}


@pytest.mark.parametrize(
    ("stops", "optimizer"),
    [
        ([MIDDLE], ONCE),
        pytest.param(
            [MIDDLE, LAST_UPDATE, VALIDATION],
            "{name: keras.optimizers.RMSprop, options: {rho: 0.8}, schedule: cosine, "
            "warmup_epochs: 1}",
            marks=pytest.mark.all_only,  # two workers are stopped there in every `make test`
        ),
    ],
    ids=["once", "again and again"],
)
def test_stopped_within_an_epoch_it_goes_on_where_it_was(
    phantom_store, whole_run, tmp_path, stops, optimizer
):
    """The epoch's metrics go on, too."""
    options = with_all(optimizer)
    whole, done = whole_run(optimizer)
    assert len(np.unique([row["learning_rate"] for row in history(whole[-1])])) > 1
    state = None
    for stop in stops:
        cut = prepare(tmp_path / "cut", phantom_store, *options)
        with pytest.raises(Stopped) as stopped:
            fit(*cut, state=state, callbacks=[AskToStop(*stop)])
        assert stopped.value.number == signal.SIGTERM
        state = state_of(cut)
        with np.load(state) as arrays:
            progress = json.loads(str(arrays["progress"]))
        assert (progress["epochs"], progress["step"]) == (1, UPDATES_DONE[stop])
        assert len(history(cut[-1])) == 1
    resumed = prepare(tmp_path / "cut", phantom_store, *options)
    assert fit(*resumed, state=state) == done
    check_equal(whole, resumed)
