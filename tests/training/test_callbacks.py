"""Keras's own callbacks, and the user's, under the training's own loop."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerasseg.config.load import load_experiment
from kerasseg.config.training import OptimizerSettings
from kerasseg.errors import UserError
from kerasseg.records.splits import Split
from kerasseg.run_experiment import build_network
from kerasseg.training.callbacks import (
    SayTakenByOneClass,
    _without_long_scores,
    taken_by_one_class,
)
from kerasseg.training.fit import compile_for_training, fit, run_epochs
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.state import Progress
from kerasseg.training.user_classes import user_callbacks
from tests.conftest import phantom_experiment
from tests.test_cli import assert_one_sentence, kerasseg, phantom_arguments
from tests.training.given_gradients import given_gradients

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
    "training.epochs=3",
)
"""Of two validation cases, 8 patches are 2 batches."""
FREE_RATE = (
    "optimizer={name: sgd, momentum: 0, nesterov: false, weight_decay: 0, learning_rate: 0.01, "
    "schedule: constant, warmup_epochs: 0}"
)
SCORES = [0.1, 0.5, 0.3, 0.2, 0.4, 0.3]
"""Validation Dice of each epoch: the best one is neither the first nor the last."""


class Recorder(keras.callbacks.Callback):
    """A user's callback: every hook with its number, and the logs of batches and epochs."""

    def __init__(self, name="recorder"):
        super().__init__()
        self.name = name
        self.calls = []
        self.batch_logs = []
        self.epoch_logs = []
        self.weights = []

    def on_train_begin(self, logs=None):
        self.calls.append("train begin")

    def on_train_end(self, logs=None):
        self.calls.append("train end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} begin")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} end")
        self.epoch_logs.append(dict(logs))
        self.weights.append(self.model.get_weights())

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(f"batch {batch} begin")

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch {batch} end")
        self.batch_logs.append(dict(logs))

    def on_test_begin(self, logs=None):
        self.calls.append("test begin")

    def on_test_end(self, logs=None):
        self.calls.append("test end")

    def on_test_batch_begin(self, batch, logs=None):
        self.calls.append(f"test batch {batch} begin")

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(f"test batch {batch} end")


class Scripted(keras.callbacks.Callback):
    """As a validator: gives each epoch its Dice of `SCORES`."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_dice"] = SCORES[epoch]


class At(keras.callbacks.Callback):
    """Does something after a batch."""

    def __init__(self, epoch, batch, action):
        super().__init__()
        self.when, self.action = (epoch, batch), action
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            self.action(self.model)


def prepare(folder, store, *options, seed=0):
    experiment = phantom_experiment(folder, *QUICK, *options)
    cases = list(store.rows)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    network = build_network(experiment)
    return experiment, network, store, Split(tuple(cases[:3]), tuple(cases[3:5]), ()), run


def with_callbacks(callbacks, *overrides):
    return load_experiment(None, [f"training.callbacks={callbacks}", *overrides])


def history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(weights, others):
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def differ(weights, others):
    return any(np.abs(a - b).max() > 1e-5 for a, b in zip(weights, others, strict=True))


def scalars(folder):
    """{tag: [(step, value)]} of one TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()  # all of them
    return {
        tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


@pytest.fixture(scope="module")
def watched(phantom_store, tmp_path_factory):
    """A run of three epochs with many callbacks of its config."""
    folder = tmp_path_factory.mktemp("watched")
    callbacks = {
        "keras.callbacks.TensorBoard": {
            "log_dir": f"{folder}/board",
            "update_freq": 3,
            "histogram_freq": 1,
        },
        "keras.callbacks.CSVLogger": {"filename": f"{folder}/log.csv"},
        "keras.callbacks.ModelCheckpoint": {"filepath": f"{folder}/every/{{epoch}}.keras"},
        f"{__name__}.Recorder": {"name": "mine"},
    }
    best = {"monitor": "val_dice", "mode": "max", "save_best_only": True}
    entries = [{path: arguments} for path, arguments in callbacks.items()] + [
        {"keras.callbacks.ModelCheckpoint": {"filepath": f"{folder}/best.keras", **best}},
        {
            "keras.callbacks.ModelCheckpoint": {
                "filepath": f"{folder}/{{epoch}}.weights.h5",
                "save_weights_only": True,
            }
        },
    ]
    job = prepare(folder, phantom_store, f"training.callbacks={json.dumps(entries)}")
    made = user_callbacks(job[0], writing=True)
    assert len(made) == len(entries)
    fit(*job, validators=[Scripted()], callbacks=made)
    (recorder,) = [c for c in made if isinstance(c, Recorder)]
    return SimpleNamespace(job=job, folder=folder, run=job[-1], recorder=recorder)


def test_a_class_by_its_import_path_sees_every_hook_with_its_number(watched):
    epoch = [f"batch {n} {word}" for n in range(4) for word in ("begin", "end")]
    epoch += ["test begin"]
    epoch += [f"test batch {n} {word}" for n in range(2) for word in ("begin", "end")]
    epoch += ["test end"]
    expected = [call for n in range(3) for call in (f"epoch {n} begin", *epoch, f"epoch {n} end")]
    recorder = watched.recorder
    assert recorder.calls == ["train begin", *expected, "train end"]
    assert recorder.name == "mine"
    assert recorder.params["epochs"] == 3 and recorder.params["steps"] == 4


def test_logs_are_numbers_of_the_epoch_so_far(watched):
    recorder = watched.recorder
    for n, row in enumerate(history(watched.run)):
        assert recorder.epoch_logs[n].keys() == row.keys() - {"epoch"}
        for name, value in recorder.epoch_logs[n].items():
            assert isinstance(value, float) and value == pytest.approx(float(row[name]), rel=1e-6)
        last = recorder.batch_logs[4 * n + 3]
        assert last == {name: recorder.epoch_logs[n][name] for name in last}
        assert recorder.batch_logs[4 * n]["loss"] != last["loss"]


def test_csv_logger_has_the_numbers_of_the_history(watched):
    with (watched.folder / "log.csv").open() as file:
        logged = list(csv.DictReader(file))
    rows = history(watched.run)
    assert [int(row["epoch"]) for row in logged] == [0, 1, 2]
    for mine, theirs in zip(rows, logged, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"epoch"}:
            assert float(theirs[name]) == pytest.approx(float(mine[name]), rel=1e-6), name


def test_tensorboard_has_scalars_of_batches_and_epochs_and_histograms(watched):
    train = scalars(watched.folder / "board" / "train")
    rows = history(watched.run)
    losses = [value for _, value in train["epoch_loss"]]
    np.testing.assert_allclose(losses, [float(row["loss"]) for row in rows], rtol=1e-5)
    assert [step for step, _ in train["epoch_loss"]] == [0, 1, 2]
    assert "epoch_dice_ET" in train and "epoch_learning_rate" in train
    batches = {step: float(value) for step, value in train["batch_loss"]}
    assert batches.keys() >= {3, 6, 9, 12}
    if not keras.__version__.startswith("3.12."):  # which writes every batch, whatever is asked
        assert len(batches) == 4
    for step, value in batches.items():
        assert value == pytest.approx(watched.recorder.batch_logs[step - 1]["loss"], rel=1e-5)
    assert any(tag.endswith("kernel/histogram") for tag in train)
    validation = scalars(watched.folder / "board" / "validation")
    scores = [value for _, value in validation["epoch_dice"]]
    np.testing.assert_allclose(scores, SCORES[:3], rtol=1e-6)


def test_a_users_tensorboard_takes_nothing_away_from_the_runs_own(watched):
    own = watched.run / "tensorboard"
    assert [step for step, _ in scalars(own / "train")["epoch_loss"]] == [0, 1, 2]
    images = scalars(own / "validation")["modalities, truth, prediction"]
    assert [step for step, _ in images] == [0, 1, 2]


LOAD = """
import json, sys
import keras, numpy as np
network = keras.saving.load_model(sys.argv[1])
image = np.random.default_rng(0).normal(size=(1, 16, 12, 4)).astype("float32")
print(json.dumps([np.asarray(network(image)).tolist(), "kerasseg" in sys.modules]))
"""


@pytest.mark.all_only  # test_saved_model loads such a file without kerasseg
def test_model_checkpoint_writes_the_network_that_keras_alone_reads(watched, python):
    done = subprocess.run(
        [python, "-c", LOAD, str(watched.folder / "every" / "3.keras")],
        capture_output=True,
        text=True,
        cwd=watched.folder,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, knows_kerasseg = json.loads(done.stdout.splitlines()[-1])
    assert not knows_kerasseg
    image = np.random.default_rng(0).normal(size=(1, 16, 12, 4)).astype("float32")
    np.testing.assert_allclose(found, watched.job[1](image), atol=1e-5)


def test_model_checkpoint_keeps_the_best(watched):
    """Of the scripted scores: that of epoch 2, counted from 1."""
    best = keras.saving.load_model(watched.folder / "best.keras").get_weights()
    epochs = [
        keras.saving.load_model(watched.folder / "every" / f"{n}.keras").get_weights()
        for n in (1, 2, 3)
    ]
    assert_same(best, epochs[1])
    assert differ(best, epochs[0]) and differ(best, epochs[2])


def test_model_checkpoint_writes_weights_that_the_network_loads(watched):
    network = build_network(watched.job[0])
    network.load_weights(watched.folder / "2.weights.h5")
    assert_same(network.get_weights(), watched.recorder.weights[1])
    assert differ(network.get_weights(), watched.recorder.weights[2])


def train_small(epochs, *callbacks, **options):
    """Train six weights in the training's own loop, whose steps take no time to trace."""
    settings = OptimizerSettings(**SMALL_SGD, **options)
    model, _ = given_gradients({"head/kernel": (2, 3)}, lambda _: build_optimizer(settings, 1, 4))
    images = np.random.default_rng(0).normal(size=(4, 1, 1, 6)).astype(np.float32)
    masks = np.zeros((4, 1, 1, 1), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, masks)).batch(1)
    progress = Progress()
    run_epochs(
        model,
        lambda epoch, update: batches.repeat(),
        batches.take(2),
        epochs=epochs,
        updates_per_epoch=4,
        validation_steps=2,
        progress=progress,
        callbacks=keras.callbacks.CallbackList([Scripted(), *callbacks], model=model),
        save=lambda: None,
    )
    return model, progress


SMALL_SGD = {
    "name": "sgd",
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup_epochs": 0,
}


@pytest.mark.parametrize("ema", [None, 0.5])
def test_early_stopping_stops_and_restores_the_best_weights(ema):
    recorder = Recorder()
    stopping = keras.callbacks.EarlyStopping(
        "val_dice", patience=2, mode="max", restore_best_weights=True
    )
    model, progress = train_small(6, recorder, stopping, ema=ema)
    assert progress.epochs == len(recorder.epoch_logs) == 4
    assert stopping.stopped_epoch == 3 and stopping.best_epoch == 1
    assert_same(model.get_weights(), recorder.weights[1])
    assert differ(model.get_weights(), recorder.weights[3])


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: [0.01, 0.0, 0.02][epoch]),
            [0.01, 0.0, 0.02],
        ),
        (
            keras.callbacks.ReduceLROnPlateau(
                "val_dice", mode="max", factor=0.0, patience=1, min_delta=2.0
            ),
            [0.01, 0.01, 0.0],
        ),
    ],
    ids=["LearningRateScheduler", "ReduceLROnPlateau"],
)
def test_a_callback_sets_the_rate_that_is_used(callback, expected):
    """At rate 0 the weights stay."""
    before, rates = [], []

    class Before(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            before.append(self.model.get_weights())
            rates.append(float(self.model.optimizer.learning_rate))

    recorder = Recorder()
    train_small(3, callback, Before(), recorder)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    moved = [differ(a, b) for a, b in zip(before, recorder.weights, strict=True)]
    assert moved == [rate > 0 for rate in expected]


RATE = "keras.callbacks.ReduceLROnPlateau: {monitor: val_dice, mode: max}"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("schedule=cosine", "optimizer.schedule=cosine with optimizer.warmup_epochs=5"),
        ("schedule=constant", "optimizer.schedule=constant with optimizer.warmup_epochs=5"),
        ("schedule=plateau", "optimizer.schedule=plateau with optimizer.warmup_epochs=0"),
    ],
)
def test_two_that_set_the_rate_are_refused(settings, found):
    experiment = with_callbacks(f"[{{{RATE}}}]", f"optimizer.{settings}")
    with pytest.raises(UserError) as error:
        user_callbacks(experiment, writing=True)
    message = str(error.value)
    assert message.startswith("training.callbacks: ReduceLROnPlateau sets the learning rate")
    assert found in message and "use schedule=constant and warmup_epochs=0" in message


def test_a_rate_that_is_free_may_be_set():
    experiment = with_callbacks(f"[{{{RATE}}}]", FREE_RATE)
    (callback,) = user_callbacks(experiment, writing=True)
    assert isinstance(callback, keras.callbacks.ReduceLROnPlateau)


@pytest.mark.all_only  # test_resume and test_kill go on, too
def test_backup_and_restore_goes_on_where_a_killed_run_was(phantom_store, tmp_path):
    """Killed in epoch 3; BatchNorm's statistics and AdamW on a cosine must all be in its file.

    (Keras keeps no random states of dropout there.)
    """
    options = ("training.epochs=4", "model.norm=batch")

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    whole = prepare(tmp_path / "whole", phantom_store, *options)
    fit(*whole)

    def fail(model):
        raise RuntimeError("killed")

    cut = prepare(tmp_path / "cut", phantom_store, *options)
    with pytest.raises(RuntimeError, match="killed"):
        fit(*cut, callbacks=[backup(), At(2, 1, fail)])
    assert [row["epoch"] for row in history(cut[-1])] == ["1", "2"]

    again = prepare(tmp_path / "again", phantom_store, *options, seed=1)
    assert differ(again[1].get_weights(), cut[1].get_weights())
    recorder = Recorder()
    done = fit(*again, callbacks=[backup(), recorder])
    assert done.epochs == 4
    begun = [call for call in recorder.calls if "epoch" in call and "begin" in call]
    assert begun == ["epoch 2 begin", "epoch 3 begin"]
    assert_same(again[1].get_weights(), whole[1].get_weights())
    for a, b in zip(history(again[-1]), history(whole[-1])[2:], strict=True):
        assert a["learning_rate"] == b["learning_rate"]
        for name in ("loss", "val_loss"):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-5)
    assert not (tmp_path / "backup").exists(), "it cleans up after a whole run"


def test_averages_are_too_much_for_backup_and_restore():
    callbacks = "[{keras.callbacks.BackupAndRestore: {backup_dir: backup}}]"
    with pytest.raises(UserError, match=r"averages of optimizer.ema.*go on with --resume"):
        user_callbacks(with_callbacks(callbacks, "optimizer.ema=0.9"), writing=True)
    assert len(user_callbacks(with_callbacks(callbacks), writing=True)) == 1


def test_a_callback_may_stop_in_the_middle_of_an_epoch():
    """As in Keras's `fit`: the epoch is validated and ends, no other one begins."""

    def stop(model):
        model.stop_training = True

    recorder = Recorder()
    _, done = train_small(3, recorder, At(1, 1, stop))
    calls = recorder.calls[recorder.calls.index("epoch 1 begin") :]
    batches = [call for call in calls if call.startswith("batch") and call.endswith("end")]
    assert batches == ["batch 0 end", "batch 1 end"]
    assert calls[-3:] == ["test end", "epoch 1 end", "train end"]
    assert done.epochs == 2 and done.step == 0 and not done.stopped_early
    assert len(recorder.epoch_logs) == 2
    assert recorder.epoch_logs[1]["loss"] == pytest.approx(recorder.batch_logs[5]["loss"])


@pytest.mark.usefixtures("steps_not_traced")
def test_terminate_on_nan_ends_the_training(phantom_store, tmp_path):
    """In the loop alone, for in `fit` a loss that is not finite is an error before."""
    experiment, network, store, split, run = prepare(tmp_path, phantom_store)
    kernel, bias = network.get_layer("head").get_weights()
    network.get_layer("head").set_weights([kernel * np.nan, bias])
    with pytest.raises(UserError, match="loss is not finite in epoch 1, step 1"):
        fit(
            experiment,
            network,
            store,
            split,
            run,
            callbacks=[keras.callbacks.TerminateOnNaN()],
        )
    model = compile_for_training(experiment, network, 4)
    batch = (tf.zeros((4, 16, 12, 4)), tf.zeros((4, 16, 12, 3), tf.uint8))
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    recorder, progress = Recorder(), Progress()
    run_epochs(
        model,
        lambda epoch, update: dataset,
        dataset,
        epochs=3,
        updates_per_epoch=4,
        validation_steps=1,
        progress=progress,
        callbacks=keras.callbacks.CallbackList(
            [keras.callbacks.TerminateOnNaN(), recorder], model=model
        ),
        save=lambda: None,
    )
    assert len(recorder.batch_logs) == 1 and progress.epochs == 1


@pytest.mark.all_only  # as every other callback
def test_terminate_on_nan_leaves_a_good_run_alone(phantom_store, tmp_path):
    job = prepare(tmp_path, phantom_store, "training.epochs=1")
    assert fit(*job, callbacks=[keras.callbacks.TerminateOnNaN()]).epochs == 1


NOT_MADE = [
    ("nowhere.to.be.Found", {}, ["nowhere.to.be.Found cannot be imported", "PYTHONPATH"]),
    (
        "keras.callbacks.CSVLoger",
        {},
        ["has no attribute 'CSVLoger'", "Did you mean keras.callbacks.CSVLogger?"],
    ),
    (
        "keras.layers.Dense",
        {"units": 3},
        ["keras.layers.Dense is not a keras.callbacks.Callback", "name a subclass of it"],
    ),
    ("keras.callbacks.CSVLogger", {}, ["does not take the arguments {}", "filename"]),
    (
        "keras.callbacks.CSVLogger",
        {"file": "log.csv"},
        ["keras.callbacks.CSVLogger does not take the arguments {'file': 'log.csv'}"],
    ),
    (
        "keras.callbacks.ModelCheckpoint",
        {"filepath": "best.pt"},
        ["does not take the arguments", "must end in `.keras`"],
    ),
    (
        "keras.callbacks.EarlyStopping",
        {"monitor": "val_dice"},
        ["EarlyStopping cannot know whether val_dice is to rise or to fall", "add mode: max"],
    ),
]


@pytest.mark.parametrize(("path", "arguments", "words"), NOT_MADE)
def test_what_cannot_be_made_is_said(path, arguments, words):
    experiment = with_callbacks(json.dumps([{path: arguments}]))
    with pytest.raises(UserError) as error:
        user_callbacks(experiment, writing=True)
    message = str(error.value)
    assert message.startswith("training.callbacks: ") and len(message.splitlines()) == 1
    assert all(word in message for word in words), message


def test_the_command_line_refuses_it_before_anything_is_written(tmp_path):
    callbacks = "training.callbacks=[{keras.callbacks.CSVLoger: {filename: log.csv}}]"
    done = kerasseg("train", *phantom_arguments(tmp_path), callbacks)
    assert_one_sentence(done, ["training.callbacks: keras.callbacks.CSVLoger cannot be imported"])
    assert list(tmp_path.iterdir()) == []


def test_only_the_chief_writes(tmp_path):
    entries = [
        {"keras.callbacks.CSVLogger": {"filename": "log.csv"}},
        {"keras.callbacks.TensorBoard": {}},
        {"keras.callbacks.ModelCheckpoint": {"filepath": "a.keras"}},
        {"keras.callbacks.BackupAndRestore": {"backup_dir": "b"}},
        {"keras.callbacks.EarlyStopping": {"monitor": "val_loss"}},
        {f"{__name__}.Recorder": {}},
    ]
    experiment = with_callbacks(json.dumps(entries))
    assert len(user_callbacks(experiment, writing=True)) == 6
    stopping, recorder = user_callbacks(experiment, writing=False)
    assert isinstance(stopping, keras.callbacks.EarlyStopping)
    assert isinstance(recorder, Recorder)


def history_rows(recalls, precisions):
    """Rows of a history.csv with the scores of one class, besides another that is as it should."""
    return [
        {
            "epoch": str(epoch),
            "val_recall": "0.7",
            "val_precision": "0.01",
            "val_recall_ET": str(recall),
            "val_precision_ET": str(precision),
            "val_recall_ED": "0.95",
            "val_precision_ED": "0.9",
        }
        for epoch, (recall, precision) in enumerate(zip(recalls, precisions, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("recalls", "precisions", "said"),
    [
        ([0.2, 0.99, 1, 0.98], [0.5, 0.02, 0.019, 0.018], True),
        ([0.99, 1, 0.98], [0.02, 0.2, 0.018], False),
        ([0.99, 0.5, 0.98], [0.02, 0.02, 0.018], False),
        ([0.99, 1], [0.02, 0.02], False),
        ([], [], False),
        ([1, 1, 1, 0.9], [0.02, 0.02, 0.02, 0.8], False),
    ],
)
def test_a_class_that_takes_everything_for_three_epochs_is_named(recalls, precisions, said):
    sentences = taken_by_one_class(history_rows(recalls, precisions))
    assert list(sentences) == (["ET"] if said else [])
    if said:
        words = "epochs 2 to 4 its recall is at least 0.98 and its precision at most 0.020"
        assert words in sentences["ET"]


def test_a_class_that_takes_everything_is_said_once_on_the_screen(capsys):
    history = SimpleNamespace(rows=[])
    callback = SayTakenByOneClass(history)
    for epoch in range(5):
        history.rows = history_rows([1.0] * (epoch + 1), [0.02] * (epoch + 1))
        callback.on_epoch_end(epoch)
    shown = capsys.readouterr().out
    assert shown.count("Warning    ET takes nearly everything") == 1 and "epochs 1 to 3" in shown


def test_weights_and_their_last_gradients_are_drawn_every_second_epoch(phantom_store, tmp_path):
    """Plain SGD at rate 1: the last gradient is what the last update took from the weights."""
    steps = []

    class Before(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps.append([v.numpy() for v in self.model.trainable_variables])

    options = ("training.histograms_every=2", FREE_RATE, "optimizer.learning_rate=1.0")
    job = prepare(tmp_path, phantom_store, *options)
    fit(*job, callbacks=[Before()], last_epoch=2)
    events = EventAccumulator(str(job[-1] / "tensorboard" / "histograms"), {"tensors": 0}).Reload()
    tags = events.Tags()["tensors"]
    names = [variable.path for variable in job[1].trainable_variables]
    assert set(tags) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    for index, variable in enumerate(job[1].trainable_variables):
        values = {"weights": variable.numpy(), "gradients": steps[-1][index] - variable.numpy()}
        for kind, expected in values.items():
            (event,) = events.Tensors(f"{kind}/{variable.path}")
            buckets = tf.make_ndarray(event.tensor_proto)
            assert event.step == 1 and buckets[:, 2].sum() == expected.size
            assert buckets[0, 0] == pytest.approx(expected.min(), abs=1e-5)
            assert buckets[-1, 1] == pytest.approx(expected.max(), abs=1e-5)


def test_one_line_sends_a_run_to_weights_and_biases(tmp_path, monkeypatch):
    """With a stand-in of the package, which is called as docs/training.md says."""
    line = next(
        line
        for line in Path("docs/training.md").read_text().splitlines()
        if "user_classes.WeightsAndBiases: {" in line
    ).strip("` ")
    calls = []
    run = SimpleNamespace(
        log=lambda logs: calls.append(("log", logs)), finish=lambda: calls.append(("finish",))
    )
    package = SimpleNamespace(init=lambda **given: calls.append(("init", given)) or run)
    monkeypatch.setitem(sys.modules, "wandb", package)
    experiment = load_experiment(None, [line.replace(": ", "=", 1), "run.seed=7"])
    (callback,) = user_callbacks(experiment, writing=True)
    assert user_callbacks(experiment, writing=False, workers=2) == [], "the chief alone sends"
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_dice": 0.5})
    callback.on_train_end()
    (_, given), *rest = calls
    assert given["project"] == "brats" and given["config"]["run.seed"] == 7
    assert given["config"]["loss.0.dice"] == 0.5
    assert rest == [("log", {"epoch": 1, "val_dice": 0.5}), ("finish",)]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="needs the package wandb: pip install wandb"):
        user_callbacks(experiment, writing=True)


def test_the_line_of_an_epoch_names_every_dice_once():
    """A single class has the mean's Dice; of several the screen shows validation's."""
    single = {"dice": 0.5, "dice_tumour": 0.5, "iou": 0.3, "loss": 1.0}
    logs = single | {f"val_{name}": value for name, value in single.items()}
    assert list(_without_long_scores(logs)) == ["dice", "loss", "val_dice", "val_loss"]
    several = {"dice": 0.5, "dice_ET": 0.4, "dice_ED": 0.6, "recall_ET": 0.3, "loss": 1.0}
    logs = several | {f"val_{name}": value for name, value in several.items()}
    logs |= {"val_volume_dice_tumour": 0.4}
    assert list(_without_long_scores(logs)) == [
        *("dice", "loss", "val_dice", "val_dice_ET", "val_dice_ED", "val_loss"),
        "val_volume_dice_tumour",
    ]
