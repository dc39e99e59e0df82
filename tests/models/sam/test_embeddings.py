"""Embeddings of slices, computed once: what is kept, what training makes of them, and refusals."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.augment import transforms_of
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.sam.network import after_encoder
from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from kerasseg.pipeline.embeddings import open_embeddings
from kerasseg.pipeline.records import parse_record
from kerasseg.records.store import open_store
from kerasseg.records.tfrecord import read_record
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
        variables = [v.value for v in model.trainable_variables]  # the head of the IoU has no part
        return tape.gradient(loss, variables, unconnected_gradients=zero)

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
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    files[1].unlink()
    with pytest.raises(UserError, match=r"embeddings of \d+ slices need .* GB, but 1e-06 GB"):
        open_embeddings(experiment, network, store, cases)
    shutil.copy(files[0], files[1])  # for the tests that follow


def test_other_weights_have_a_folder_of_their_own(made):
    experiment, store, _, cases, embeddings = made
    keras.utils.set_random_seed(1)
    network = build_network(experiment.model, 1)
    other = open_embeddings(experiment, network, store, cases[:1])
    assert other.folder != embeddings.folder and other.folder.parent == embeddings.folder.parent
    shutil.copytree(embeddings.folder, other.folder, dirs_exist_ok=True)  # by a person
    with pytest.raises(UserError, match=r"embeddings.json names other weights, data or slices"):
        open_embeddings(experiment, network, store, cases[:1])


def test_copies_are_augmented_slices_with_their_labels_and_the_first_is_plain(made):
    _, store, network, cases, plain = made
    given = ("augment.preset=light", "model.sam.embedding_copies=3")
    experiment = sam_experiment(made[0].run.root.parent, *given)
    found = open_embeddings(experiment, network, store, cases[:1])
    assert found.folder != plain.folder
    count = store.rows[cases[0]].shape[0]
    (path,) = found.folder.glob("*.tfrecord")
    once = path.read_bytes()
    path.unlink()
    open_embeddings(experiment, network, store, cases[:1])
    assert path.read_bytes() == once  # the seed says what the copies are

    def stored(embeddings, places):
        read = embeddings.reader(cases[:1])
        numbers = tf.data.Dataset.from_tensor_slices(tf.constant(places))
        return list(numbers.flat_map(lambda place: read(tf.constant(0), place)))

    records = [[x.numpy() for x in parts] for parts in stored(found, list(range(3 * count)))]
    embedding, label = records[count // 2]
    np.testing.assert_array_equal(embedding, stored(plain, [count // 2])[0][0])
    encoder = keras.Model(network.input, network.get_layer("bottleneck").output)
    row = store.rows[cases[0]]
    payload = read_record(store.root / row.shard, row.offset, cases[0])
    record = parse_record(tf.constant(payload), 1, found._sizes)
    seed = tf.random.fold_in(found._seed, 0)
    image, expected = found._slice(record, 2, count // 2, seed)
    again, labels = records[2 * count + count // 2]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(again, encoder(tf.cast(image[None], tf.float32))[0], atol=2e-3)
    assert np.abs(again - embedding).max() > 0.01

    transforms = transforms_of(experiment.augment)
    same = {"target": "binary", "batch_size": 1, "seed": 1, "embeddings": found}
    settings = experiment.pipeline
    drawn = TrainingBatches(store, cases[:1], settings, transforms=transforms, **same).dataset()
    known = {
        embedding.tobytes(): (i // count, label) for i, (embedding, label) in enumerate(records)
    }
    copies = set()
    for embedding, masks in drawn.take(12):
        copy, label = known[embedding.numpy().tobytes()]
        np.testing.assert_array_equal(masks[0, ..., 0], label > 0)
        copies.add(copy)
    assert len(copies) > 1
    for embedding, *_ in validation_batches(store, cases[:1], settings, **same):
        assert known[embedding.numpy().tobytes()][0] == 0


def test_copies_of_what_does_not_change_are_refused(tmp_path):
    with pytest.raises(UserError, match="embedding_copies=3, but nothing is augmented"):
        sam_experiment(tmp_path, "model.sam.embedding_copies=3")


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
