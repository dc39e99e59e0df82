"""Embeddings of slices, computed once: what is kept, what training makes of them, and refusals."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.sam.network import after_encoder
from kerasseg.pipeline import embeddings as module
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.pipeline.embeddings import open_embeddings
from kerasseg.records.store import open_store
from tests.models.sam.test_sam_run import sam_experiment


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment, its store, its network, and the embeddings of four cases."""
    folder = tmp_path_factory.mktemp("embeddings")
    experiment = sam_experiment(folder)
    store = open_store(experiment)
    keras.utils.set_random_seed(0)
    network = build_network(experiment.model, 1)
    cases = list(store.rows)[:4]
    return experiment, store, network, cases, open_embeddings(experiment, network, store, cases)


def batches(made, embeddings):
    experiment, store, _, cases, _ = made
    given = {"target": "binary", "batch_size": 4, "seed": 1, "embeddings": embeddings}
    dataset = TrainingBatches(store, cases, experiment.pipeline, **given).dataset()
    return list(dataset.take(3))


def test_batches_hold_the_embeddings_of_the_slices_that_they_would_hold(made):
    _, _, network, _, embeddings = made
    encoder = keras.Model(network.input, network.get_layer("bottleneck").output)
    for (image, masks), (embedding, same) in zip(
        batches(made, None), batches(made, embeddings), strict=True
    ):
        assert embedding.dtype == tf.float16
        np.testing.assert_array_equal(masks, same)
        expected = np.asarray(encoder(tf.cast(image, tf.float32)))
        np.testing.assert_allclose(embedding, expected, atol=2e-3)


def test_gradients_are_equal_with_and_without(made):
    _, _, network, _, embeddings = made
    size = made[0].pipeline.patch_size
    decoder = after_encoder(network, made[0].model, size)
    assert [v.path for v in decoder.trainable_variables] == [
        v.path for v in network.trainable_variables
    ]

    def gradients(model, batch):
        x, masks = batch
        with tf.GradientTape() as tape:
            found = model(tf.cast(x, tf.float32), training=True)
            loss = tf.reduce_mean(
                keras.losses.binary_crossentropy(tf.cast(masks, "float32"), found)
            )
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(loss, model.trainable_variables, unconnected_gradients=zero)

    without = gradients(network, batches(made, None)[0])
    stored = gradients(decoder, batches(made, embeddings)[0])
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in without)
    for a, b in zip(without, stored, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3 * largest)  # float16 is exact to 1/2048


def test_what_is_there_is_kept_and_what_is_missing_is_added(made, capsys, monkeypatch):
    experiment, store, network, cases, embeddings = made
    files = sorted(embeddings.folder.glob("*.tfrecord"))
    assert len(files) == 4
    before = files[0].stat().st_mtime_ns, files[1].read_bytes()
    files[1].unlink()
    capsys.readouterr()
    again = open_embeddings(experiment, network, store, cases)
    assert again.folder == embeddings.folder and files[0].stat().st_mtime_ns == before[0]
    assert files[1].read_bytes() == before[1]
    count = store.rows[cases[1]].shape[0]
    assert f"Embedding {count} slices once" in capsys.readouterr().err
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    files[1].unlink()
    with pytest.raises(UserError, match=r"embeddings of \d+ slices need .* GB, but 1e-06 GB"):
        open_embeddings(experiment, network, store, cases)
    shutil.copy(files[0], files[1])  # for the tests that follow


def test_other_weights_have_a_folder_of_their_own(made):
    experiment, store, _, cases, embeddings = made
    keras.utils.set_random_seed(1)
    other = open_embeddings(experiment, build_network(experiment.model, 1), store, cases[:1])
    assert other.folder != embeddings.folder and other.folder.parent == embeddings.folder.parent


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.sam.trained_blocks=1", "the encoder is trained"),
        ("augment.preset=light", "slices are augmented"),
        ("pipeline.patch_size=[8,8]", "slices of up to .* are cut to pipeline.patch_size"),
    ],
)
def test_where_slices_have_none_they_are_not_used_or_refused(made, override, reason):
    experiment, store, network, cases, _ = made
    folder = experiment.run.root.parent
    assert open_embeddings(sam_experiment(folder, override), network, store, cases) is None
    asked = sam_experiment(folder, override, "model.sam.embeddings=true")
    with pytest.raises(UserError, match=f"model.sam.embeddings=true, but {reason}"):
        open_embeddings(asked, network, store, cases)
    never = sam_experiment(folder, "model.sam.embeddings=false")
    assert open_embeddings(never, network, store, cases) is None
