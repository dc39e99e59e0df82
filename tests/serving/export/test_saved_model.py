"""Exported models, asked as a client asks them, against `Model.predict`."""

import gzip
import json
import os
import subprocess
import zlib

import numpy as np
import pytest
import tensorflow as tf
import yaml

from kerasseg.config.load import load_experiment
from kerasseg.config.model import ModelSettings
from kerasseg.datasets.phantom import make_phantom
from kerasseg.inference.ensemble import Ensemble
from kerasseg.models.build import float32_twin
from kerasseg.prediction.model import load
from kerasseg.serving.export import export_runs
from kerasseg.serving.protocol import WARM_UP_FILE
from kerasseg.serving.signatures import RunGraph
from tests.conftest import SHAPE, phantom_experiment
from tests.models.check_model import build
from tests.models.test_float32_twin import SETTINGS, image
from tests.program import run_program
from tests.run_folders import SMALL, not_written, write_run

IDS = {0: 0, 1: 1, 2: 2, 3: 3}
"""Canonical id to the id that phantoms have."""
ODD = (13, 9, 31)
"""Smaller and larger than the windows of 8 x 16 x 12."""

STRANGER = """
import sys
sys.modules["kerasseg"] = None  # as if it were not installed
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
given = dict(numpy.load(sys.argv[2]))
found, patch = {}, given.pop("network")
for name in {key.partition("/")[0] for key in given}:
    inputs = {k.partition("/")[2]: v for k, v in given.items() if k.partition("/")[0] == name}
    for key, value in model.signatures[name.partition("-")[0]](
        **{k: tensorflow.constant(v) for k, v in inputs.items()}
    ).items():
        found[name + "/" + key] = value.numpy()
import keras
found["network"] = numpy.asarray(keras.saving.load_model(sys.argv[4])(patch))
assert not [m for m in sys.modules if m.startswith("kerasseg.")]
numpy.savez(sys.argv[3], **found)
"""


def raw(shape=SHAPE, seed=0):
    """A phantom with air around, or a part of one."""
    image, _ = make_phantom(tuple(max(n, 16) for n in shape), seed=5, index=seed)
    return np.ascontiguousarray(image[tuple(slice(0, n) for n in shape)], np.float32)


def ask(loaded, volume, *, spacing=(1, 1, 1), probabilities=True):
    found = loaded.signatures["segment"](
        volume=tf.constant(volume),
        spacing=tf.constant(spacing, tf.float32),
        probabilities=tf.constant(probabilities),
    )
    return found["labels"].numpy(), found["probabilities"].numpy()


def ask_bytes(loaded, data, shape, dtype="float32", compression="", **others):
    inputs = {"spacing": tf.zeros(3), "probabilities": tf.constant(False), **others}
    found = loaded.signatures["segment_bytes"](
        data_bytes=tf.constant(data),
        shape=tf.constant(shape, tf.int32),
        dtype=tf.constant(dtype),
        compression=tf.constant(compression),
        **inputs,
    )
    return {name: value.numpy() for name, value in found.items()}


def tell(loaded, request=""):
    found = loaded.signatures["metadata"](request=tf.constant(request))
    return json.loads(found["json"].numpy())


def built(folders, *, combine="mean", labels=None, gzip=True):
    """The signatures of an export that is not written and read again, and the model itself.

    Writing takes half of the time, and is tested with one run and with an ensemble.
    """
    model = load(*folders, combine=combine)
    return not_written(model, labels, gzip=gzip), model


def check_same(loaded, model, volume, ids=IDS, spacing=(1.0, 1.0, 1.0)):
    label, probabilities = ask(loaded, volume, spacing=spacing)
    expected = model.predict(volume, spacing=spacing)
    assert label.dtype == np.uint8 and expected.probabilities.std() > 0.01
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(label, expected.own_label(ids))


def test_a_stranger_without_kerasseg_gets_what_predict_gives(exported, runs, tmp_path, python):
    """Another process in another folder, in isolated mode.

    And the .keras file of a network that was trained in float16, which it runs in float32.
    """
    model = load(runs["cleaned"])
    volumes = {"whole": raw(), "odd": raw(ODD, 1)}
    given = {}
    for name, volume in volumes.items():
        given |= {
            f"segment-{name}/volume": volume,
            f"segment-{name}/spacing": np.ones(3, np.float32),
            f"segment-{name}/probabilities": np.asarray(True),
        }
    patch = np.random.default_rng(0).normal(size=(2, 7, 9, 11, 4)).astype(np.float32)
    given["serving_default/patches"] = patch
    half = build(ModelSettings.model_validate(SETTINGS), 2, "mixed_float16")
    twin, given["network"] = float32_twin(half), image(3)
    twin.save(tmp_path / "network.keras")
    np.savez(tmp_path / "given.npz", **given)
    script, answer = tmp_path / "stranger.py", tmp_path / "found.npz"
    script.write_text(STRANGER)
    subprocess.run(
        [python, "-I", script, exported, tmp_path / "given.npz", answer, "network.keras"],
        check=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
    )
    found = np.load(answer)
    np.testing.assert_allclose(found["network"], twin(image(3)), atol=1e-5)
    for name, volume in volumes.items():
        expected = model.predict(volume)
        assert 0 < (expected.label > 0).mean() < 1
        np.testing.assert_allclose(
            found[f"segment-{name}/probabilities"], expected.probabilities, atol=1e-5
        )
        np.testing.assert_array_equal(found[f"segment-{name}/labels"], expected.own_label(IDS))
    network = model.runs[0].predictor.network
    np.testing.assert_allclose(
        found["serving_default/probabilities"], np.asarray(network(patch)), atol=1e-5
    )


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (3.0, 1.0, 2.0)])
def test_post_processing_measures_in_millimetres(loaded, runs, spacing):
    check_same(loaded, load(runs["cleaned"]), raw(), spacing=spacing)


@pytest.mark.parametrize(
    ("names", "wanted", "ids"),
    [
        (["labels"], {"labels": "brats"}, {**IDS, 3: 4}),
        (["slices"], {}, IDS),
        pytest.param(
            ["other", "slices"],
            {"labels": "msd"},
            {0: 0, 1: 2, 2: 1, 3: 3},
            marks=pytest.mark.all_only,  # ensembles and slices are exported by themselves
        ),
        pytest.param(["cleaned", "slices"], {"combine": "vote"}, IDS, marks=pytest.mark.all_only),
    ],
)
def test_other_networks_and_ensembles(runs, names, wanted, ids):
    loaded, model = built([runs[name] for name in names], **wanted)
    check_same(loaded, model, raw(), ids)
    check_same(loaded, model, raw(ODD, 1), ids)
    assert ("serving_default" in loaded.signatures) == (len(names) == 1)
    if names == ["slices"]:
        check_same(loaded, model, np.ascontiguousarray(raw()[9:10]), ids)
        assert tell(loaded)["dimensions"] == 2 and tell(loaded)["limits"]["smallest_depth"] == 1


def test_the_serving_default_of_an_ensemble_is_the_mean(runs, tmp_path):
    folders = [runs["cleaned"], runs["other"]]
    settings = ["postprocessing={}"]
    version, _ = export_runs(folders, tmp_path / "models" / "two", overrides=settings)
    loaded, model = tf.saved_model.load(str(version)), load(*folders, overrides=settings)
    check_same(loaded, model, raw())
    patch = np.random.default_rng(0).normal(size=(1, 8, 5, 6, 4)).astype(np.float32)
    found = loaded.signatures["serving_default"](patches=tf.constant(patch))
    expected = np.mean([run.predictor.network(patch) for run in model.runs], axis=0)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    weights = sum(w.numpy().size for run in model.runs for w in run.predictor.network.weights)
    windows = 2 * 8 * 16 * 12
    stored = (version / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert 4 * (weights + windows) <= stored < 4.5 * (weights + windows), "weights are there once"


def test_the_serving_default_of_a_vote_is_the_share_of_votes(runs, tmp_path):
    low = phantom_experiment(tmp_path, *SMALL, "evaluation.threshold=0.3")
    folders = [write_run(tmp_path / "low", low, 7), runs["other"]]
    loaded, model = built(folders, combine="vote")
    check_same(loaded, model, raw())
    patches = np.random.default_rng(0).normal(size=(2, 8, 16, 12, 4)).astype(np.float32)
    found = loaded.signatures["serving_default"](patches=tf.constant(patches))
    voters = Ensemble([run.predictor for run in model.runs], combine="vote")
    expected = [voters.probabilities(patch) for patch in patches]
    np.testing.assert_array_equal(found["probabilities"], expected)
    assert set(np.unique(expected)) == {0.0, 0.5, 1.0}, "the runs differ"


def test_a_vote_of_a_softmax_target_is_for_the_most_probable(runs):
    (run,) = load(runs["labels"]).runs
    patches = np.random.default_rng(0).normal(size=(2, 8, 16, 12, 4)).astype(np.float32)
    votes = RunGraph(run).votes(tf.constant(run.predictor.network(patches)))
    np.testing.assert_array_equal(votes, [run.predictor.masks(patch) for patch in patches])


@pytest.mark.parametrize("dtype", ["float16", "int16", "float32"])
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_bytes_are_a_volume(loaded, dtype, compression):
    volume = np.rint(raw(ODD, 1))
    label, probabilities = ask(loaded, volume.astype(dtype).astype(np.float32))
    data = volume.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    data = gzip.compress(data) if compression else data
    found = ask_bytes(
        loaded, data, volume.shape, dtype, compression, probabilities=tf.constant(True)
    )
    assert found["shape"].tolist() == list(ODD) and label.any()
    np.testing.assert_array_equal(
        np.frombuffer(found["labels_bytes"], np.uint8).reshape(ODD), label
    )
    np.testing.assert_array_equal(
        np.frombuffer(found["probabilities_bytes"], "<f2").reshape(*ODD, 3),
        probabilities.astype(np.float16),
    )
    less = ask_bytes(loaded, data, volume.shape, dtype, compression)
    assert less["probabilities_bytes"] == b""
    assert less["labels_bytes"] == found["labels_bytes"]


def test_probabilities_come_on_request_only(loaded):
    label, probabilities = ask(loaded, raw(), probabilities=False)
    assert probabilities.shape == (0, 0, 0, 3) and label.shape == SHAPE


def test_a_scan_unlike_those_of_the_training_is_said_in_the_answer(loaded):
    for spacing, words in (((1, 1, 1.5), b""), ((6, 1, 1), b"The scan has voxels of 6x1x1 mm")):
        volume, steps = tf.constant(raw(ODD, 1)), tf.constant(spacing, tf.float32)
        wanted = {"spacing": steps, "probabilities": tf.constant(False)}
        found = loaded.signatures["segment"](volume=volume, **wanted)
        assert found["warnings"].numpy().startswith(words)
        assert bool(found["warnings"].numpy()) == bool(words)


def test_metadata(loaded, runs):
    said = tell(loaded)
    assert said["modalities"] == ["flair", "t1", "t1ce", "t2"] and said["channels"] == 4
    assert said["labels"] == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    assert said["regions"] == ["WT", "TC", "ET"] and said["target"] == "regions"
    assert said["dimensions"] == 3 and said["spacing"] is None
    assert said["colours"]["WT"] == "#ffd23f" and said["score"] == {
        "cleaned": {"test": {"WT": 0.9}}
    }
    assert said["limits"]["voxels"] == 20_000 and said["runs"] == ["cleaned"]
    config = yaml.safe_load(said["config"])
    assert config["model"]["target"] == "regions"
    assert '"/' not in json.dumps(config), "no absolute path of the machine that exported it"
    assert said["versions"]["tensorflow"] == tf.__version__
    assert tell(loaded, "labels") == {"labels": said["labels"]}
    with pytest.raises(tf.errors.InvalidArgumentError, match="request is nonsense, expected"):
        tell(loaded, "nonsense")


def test_warm_up_requests_are_answered(exported, loaded):
    """The file is read and replayed as TensorFlow Serving does."""
    from tensorflow_serving.apis import prediction_log_pb2

    seen = []
    for record in tf.data.TFRecordDataset(str(exported / WARM_UP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "brain"
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        name = request.model_spec.signature_name
        wanted = loaded.signatures[name].structured_input_signature[1]
        assert inputs.keys() == wanted.keys()
        assert all(inputs[k].dtype == wanted[k].dtype for k in inputs)
        assert loaded.signatures[name](**inputs)
        seen.append(name)
    assert seen == ["serving_default", "segment", "segment_bytes", "metadata"]


VOLUME = raw(ODD, 1)
NAN, EMPTY_CHANNEL = VOLUME.copy(), VOLUME.copy()
NAN[3, 4, 5, 1] = np.nan
EMPTY_CHANNEL[..., 2] = 0


@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        (VOLUME[0], r"shape is \[9 31 4\], expected \(depth, height, width, 4\).*flair, t1, t1ce"),
        (VOLUME[..., :3], r"shape is \[13 9 31 3\], expected \(depth"),
        (VOLUME[:0], r"shape is \[0 9 31 4\]: it holds no voxel"),
        (VOLUME[:1], "a single slice, but this model takes whole volumes"),
        (np.ones((40, 40, 40, 4), np.float32), "more than 20000 voxels"),
        (NAN, r"1 value\(s\) that are NaN or infinite"),
        (EMPTY_CHANNEL, "same value in every voxel of the channel.s. t1ce"),
        (np.zeros_like(VOLUME), "channel.s. flair, t1, t1ce, t2"),
    ],
)
def test_bad_volumes_are_refused_with_a_sentence(loaded, volume, sentence):
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        ask(loaded, volume)


@pytest.mark.parametrize(
    ("spacing", "sentence"),
    [
        ((1, 1), r"spacing has the shape \[2\]"),
        ((1, -1, 1), "spacing is .*expected the voxel size"),
        ((1, np.nan, 1), "spacing is .*expected the voxel size"),
    ],
)
def test_bad_spacing(loaded, spacing, sentence):
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        ask(loaded, VOLUME, spacing=spacing)


PLAIN = VOLUME.astype("<i2").tobytes()
ZIPPED = gzip.compress(PLAIN, mtime=0)  # without the time of day: it stands in names of tests
BOMB = gzip.compress(bytes(50_000_000), mtime=0)


def liar(data, said):
    """A gzip whose trailer says that it holds `said` bytes."""
    return data[:-4] + said.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "shape", "dtype", "compression", "sentence"),
    [
        (PLAIN[:-1], VOLUME.shape, "int16", "", "has 29015 bytes, but shape .* are 29016"),
        (PLAIN, (13, 9, 31), "int16", "", r"shape is \[13 9 31\], expected"),
        (PLAIN, (13, 9, 31, 3), "int16", "", r"shape is \[13 9 31 3\], expected"),
        (PLAIN, (-13, -9, 31, 4), "int16", "", "holds no voxel"),
        (b"", (2**31 - 1,) * 3 + (4,), "int16", "", "more than 20000 voxels"),
        (b"", (0, 9, 31, 4), "int16", "", "holds no voxel"),
        (PLAIN, VOLUME.shape, "float64", "", "dtype is float64, expected float16, int16, float32"),
        (PLAIN, VOLUME.shape, "int16", "zstd", "compression is zstd, expected nothing, gzip"),
        (PLAIN, VOLUME.shape, "int16", "gzip", "bytes of data_bytes are no gzip"),
        (b"", VOLUME.shape, "int16", "gzip", "the 0 bytes of data_bytes are no gzip"),
        (ZIPPED[:-9], VOLUME.shape, "int16", "gzip", "the gzip in data_bytes says"),
        (ZIPPED, VOLUME.shape, "float32", "gzip", "says that it holds 29016 .* takes 58032"),
        (BOMB, VOLUME.shape, "int16", "gzip", "says that it holds 50000000 bytes"),
        (liar(BOMB, 29016), VOLUME.shape, "int16", "gzip", "48.* bytes of gzip cannot hold"),
        (ZIPPED[:20] + ZIPPED[-8:], VOLUME.shape, "int16", "gzip", "28 bytes of gzip cannot hold"),
    ],
)
def test_bad_bytes_are_refused_with_a_sentence(loaded, data, shape, dtype, compression, sentence):
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        ask_bytes(loaded, data, shape, dtype, compression)


def test_a_bomb_is_refused_before_it_is_inflated(exported, tmp_path):
    """600 MB of zeros in 0.6 MB. The trailer says so, and nothing of the kind is allocated."""
    script = tmp_path / "bomb.py"
    script.write_text(
        """
import gzip, resource, sys, zlib
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
packer = zlib.compressobj(1, wbits=31)
data = b"".join(packer.compress(bytes(10**7)) for _ in range(60)) + packer.flush()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    model.signatures["segment_bytes"](
        data_bytes=tf.constant(data), shape=tf.constant([13, 9, 31, 4]),
        dtype=tf.constant("int16"), compression=tf.constant("gzip"),
        spacing=tf.zeros(3), probabilities=tf.constant(False))
except tf.errors.InvalidArgumentError as error:
    assert "says that it holds 600000000 bytes" in str(error), error
else:
    raise AssertionError("taken")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 200_000, grown
"""
    )
    done = run_program([script, exported])
    assert done.returncode == 0, done.stderr[-2000:]


def test_damage_within_the_gzip_is_found_by_zlib(loaded):
    damaged = bytearray(ZIPPED)
    damaged[len(ZIPPED) // 2] ^= 255
    with pytest.raises((tf.errors.DataLossError, tf.errors.InvalidArgumentError)):
        ask_bytes(loaded, bytes(damaged), VOLUME.shape, "int16", "gzip")
    with pytest.raises((zlib.error, gzip.BadGzipFile)):
        gzip.decompress(bytes(damaged))


def test_a_forged_trailer_is_found_after_inflating(loaded):
    """A little bomb: its length passes for that of the volume."""
    small = liar(gzip.compress(bytes(1_000_000)), len(PLAIN))
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError)):
        ask_bytes(loaded, small, VOLUME.shape, "int16", "gzip")


def test_scalars_that_are_none(loaded):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"probabilities has the shape \[2\]"):
        ask(loaded, VOLUME, probabilities=[True, False])


def test_gzip_can_be_refused_and_a_run_of_other_voxels_resamples(runs):
    loaded, model = built([runs["thick"]], gzip=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="compression is gzip, expected"):
        ask_bytes(loaded, ZIPPED, VOLUME.shape, "int16", "gzip")
    assert tell(loaded)["limits"]["compressions"] == [""]
    assert tell(loaded)["spacing"] == [3, 1, 1]
    for spacing in ((3.002, 1.0, 1.0), (1.0, 1.0, 1.0), (5.0, 0.75, 1.5)):
        check_same(loaded, model, VOLUME, spacing=spacing)
    with pytest.raises(tf.errors.InvalidArgumentError, match="would have 68550300 voxels"):
        ask(loaded, VOLUME, spacing=(90, 90, 7))
    for spacing in ((0.001, 0.001, 0.001), (0.1, 0.1, 0.1), (10, 10, 10), (300, 1, 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="impossible in a scan of a head"):
            ask(loaded, VOLUME, spacing=spacing)


def test_pictures_of_other_sizes_are_resized(tmp_path):
    settings = ("data={layout: lgg, root: nowhere, size: [20, 24]}", "pipeline.patch_size=[12,16]")
    more = ("model.dimensions=2", "model.target=binary", "model.features=[4]", "model.bottleneck=6")
    write_run(tmp_path / "run", load_experiment(None, [*settings, *more]))
    loaded, model = built([tmp_path / "run"])
    red, green, blue, _ = np.moveaxis(raw(ODD, 1), -1, 0)
    pictures = np.stack([red, green, blue], axis=-1)
    assert tell(loaded)["size"] == [20, 24]
    label, probabilities = ask(loaded, pictures)
    expected = model.predict(pictures)
    assert probabilities.shape == (*ODD, 1) and probabilities.std() > 0.01
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
    tumour = tell(loaded)["labels"]["tumour"]
    np.testing.assert_array_equal(label, np.where(expected.probabilities[..., 0] >= 0.5, tumour, 0))
