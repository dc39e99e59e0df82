"""The fit on tiny phantoms: learning, stopping, resuming, bad data."""

import csv
import shutil

import keras
import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.records.splits import Split
from kerasseg.records.store import open_store
from kerasseg.run_experiment import build_network
from kerasseg.training.fit import fit
from kerasseg.training.state import FILE_NAME
from tests.conftest import phantom_experiment


def prepare(tmp_path, store, *overrides):
    quick = ("model.encoder_blocks=1", "model.decoder_blocks=1")
    experiment = phantom_experiment(tmp_path, *quick, *overrides)
    cases = list(store.rows)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(experiment.run.seed)
    network = build_network(experiment)
    return experiment, network, store, Split(tuple(cases[:6]), tuple(cases[5:7]), ()), folder


def rows(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_loss_falls_and_everything_is_written(
    graphs_as_users_have_them, phantom_store, tmp_path, capsys
):
    job = prepare(tmp_path, phantom_store, "training.epochs=4", "training.steps_per_epoch=12")
    done = fit(*job)
    assert capsys.readouterr().out.count("Epoch 1/4") == 1, "one progress bar"
    folder = job[-1]
    history = rows(folder)
    losses = [float(row["loss"]) for row in history]
    assert losses[-1] < 0.9 * losses[0]
    assert [row["epoch"] for row in history] == ["1", "2", "3", "4"]
    assert history[0].keys() == {
        "epoch",
        "learning_rate",
        *(n for m in ("dice", "iou", "precision", "recall") for n in flat_names(m)),
        *("loss", "val_loss", "val_dice_smoothed"),
    }
    dice = [float(row["val_dice"]) for row in history]
    weights = [0.5 ** np.arange(epoch)[::-1] for epoch in range(1, 5)]
    scores = [np.average(dice[: len(w)], weights=w) for w in weights]
    np.testing.assert_allclose(
        [float(row["val_dice_smoothed"]) for row in history], scores, atol=1e-6
    )
    assert done.best_epoch == int(np.argmax(scores)) + 1
    assert done.best_score == pytest.approx(max(scores), abs=1e-6)
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"best.keras", "last.keras", FILE_NAME}
    last = keras.saving.load_model(folder / "checkpoints" / "last.keras")
    for a, b in zip(last.weights, job[1].weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    tags = tensorboard_tags(folder / "tensorboard")
    assert {"epoch_loss", "epoch_dice_ET", "epoch_learning_rate"} <= tags
    assert any("truth" in tag for tag in tags)


def flat_names(metric):
    """Of the mean and the channels, in training and validation."""
    names = [metric, *(f"{metric}_{channel}" for channel in ("NCR", "ED", "ET"))]
    return [*names, *(f"val_{name}" for name in names)]


def tensorboard_tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = set()
    for part in folder.iterdir():
        events = EventAccumulator(str(part)).Reload().Tags()
        tags |= set(events["tensors"]) | set(events["images"]) | set(events["scalars"])
    return tags


@pytest.mark.all_only  # test_resume and test_kill show it, too
def test_interrupted_and_resumed_equals_uninterrupted(phantom_store, tmp_path):
    """Killed in the middle of epoch 3, resumed: the weights of a run that was never touched."""
    options = ("training.epochs=4", "training.gradient_accumulation=2", "model.features=[4]")
    whole = prepare(tmp_path / "whole", phantom_store, *options)
    fit(*whole)

    job = prepare(tmp_path / "cut", phantom_store, *options)
    counter = {"calls": 0}

    class Cut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counter["calls"] += 1
            if counter["calls"] == 2 * 3 + 2:
                raise KeyboardInterrupt  # as a second Ctrl-C: nothing more is saved

    with pytest.raises(KeyboardInterrupt):
        fit(*job, callbacks=[Cut()])
    assert len(rows(job[-1])) == 2
    again = prepare(tmp_path / "cut", phantom_store, *options)
    done = fit(*again, state=job[-1] / "checkpoints" / FILE_NAME)
    assert done.epochs == 4
    for a, b in zip(again[1].weights, whole[1].weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert [r["epoch"] for r in rows(again[-1])] == ["1", "2", "3", "4"]
    assert rows(again[-1]) == rows(whole[-1])


def test_the_learning_rate_follows_its_curve_update_by_update(phantom_store, tmp_path):
    """A rise over the first epoch's two updates of two batches each, and the cosine over the
    other four."""
    job = prepare(
        tmp_path,
        phantom_store,
        "model.dimensions=2",
        "pipeline.patch_size=[16,12]",
        "model.features=[4]",
        "training={epochs: 3, steps_per_epoch: 4, gradient_accumulation: 2}",
        "optimizer={learning_rate: 0.2, warmup_epochs: 1, final_fraction: 0.1}",
    )
    rates = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            assert int(self.model.optimizer.iterations) == len(rates)
            rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    fit(*job, callbacks=[Record()])
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    expected = 0.2 * np.concatenate([[1 / 3, 2 / 3], 0.1 + 0.9 * falling])
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert float(rows(job[-1])[-1]["learning_rate"]) == pytest.approx(0.02, rel=1e-5)


@pytest.mark.usefixtures("steps_not_traced")
def test_early_stopping_counts_epochs_without_a_better_score(phantom_store, tmp_path):
    job = prepare(
        tmp_path,
        phantom_store,
        "training.epochs=30",
        "training.early_stopping_patience=2",
        "training.steps_per_epoch=1",
        "optimizer.learning_rate=1e-9",
        "model.features=[4]",
    )
    done = fit(*job)
    assert done.stopped_early and done.epochs == done.best_epoch + 2
    state = job[-1] / "checkpoints" / FILE_NAME
    assert fit(*job, state=state).epochs == done.epochs, "stays stopped"


@pytest.mark.usefixtures("steps_not_traced")
def test_a_non_finite_loss_stops_with_step_and_cases(phantom_store, tmp_path):
    experiment, network, store, split, folder = prepare(tmp_path, phantom_store)
    weights = network.get_layer("head").get_weights()
    network.get_layer("head").set_weights([np.full_like(weights[0], np.nan), weights[1]])
    with pytest.raises(UserError) as error:
        fit(experiment, network, store, split, folder)
    message = str(error.value)
    assert "loss is not finite in epoch 1, step 1" in message and "phantom_000" in message
    assert not (folder / "checkpoints" / "best.keras").exists()


def test_a_damaged_record_stops_with_its_file_and_case(tmp_path):
    store = open_store(phantom_experiment(tmp_path))
    job = prepare(tmp_path, store)
    row = store.rows["phantom_0002"]
    shard = store.root / row.shard
    data = bytearray(shard.read_bytes())
    data[row.offset + row.payload_bytes // 2] ^= 8
    shard.write_bytes(data)
    with pytest.raises(UserError, match=rf"{row.shard}: the record of case phantom_0002"):
        fit(*job)
    shutil.rmtree(store.root)
