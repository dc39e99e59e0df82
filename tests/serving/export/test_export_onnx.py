"""`kerasseg export --format onnx` against the Keras network, and what it refuses."""

import builtins
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.cli.serving import export
from kerasseg.config.model import ModelSettings
from kerasseg.datasets.phantom import make_phantom
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.prediction.model import load
from kerasseg.serving import export_onnx as module
from kerasseg.serving.export_onnx import export_onnx, write_onnx
from kerasseg.serving.onnx_check import OnnxNetwork, check_patches, exact_twin, largest_difference
from tests.serving.export.test_export_runs import changed
from tests.test_cli import run_here


@pytest.fixture(scope="module", autouse=True)
def networks_are_converted_once():
    """What is written of a network with the same weights is taken from the first time."""
    export, files = keras.Model.export, {}

    def export_once(network, path, **options):
        weights = tuple(array.tobytes() for array in network.get_weights())
        if weights not in files:
            export(network, path, **options)
            files[weights] = Path(path).read_bytes()
        Path(path).write_bytes(files[weights])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "export", export_once)
        yield


def in_onnxruntime(path, patches):
    """Run the file as onnxruntime's own documentation does."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(["probabilities"], {"patches": patches})[0]


def in_openvino(path, patches):
    """Run the file as docs/onnx.md says."""
    import openvino

    model = openvino.convert_model(path)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(patches)[0]


def patches_of(run, shape):
    """Scaled and shifted noise, other than what the export itself checks, and Keras's answer."""
    patches = np.random.default_rng(8).normal(0.3, 1.5, shape).astype(np.float32)
    network = keras.saving.load_model(run / "checkpoints" / "best.keras", compile=False)
    return patches, network.predict(patches, verbose=0)


@pytest.mark.parametrize(
    "name, shape",
    [
        # The sigmoid of regions is that of slices, and the other 3-D network has the same layers.
        pytest.param("other", (3, 16, 32, 12, 4), marks=pytest.mark.all_only),
        ("stored", (3, 24, 48, 12)),
        # 3-D is that of the patches in air; a run without its store below is converted and checked.
        pytest.param("labels", (1, 10, 20, 16, 4), marks=pytest.mark.all_only),
    ],
)
def test_onnxruntime_and_openvino_give_what_the_network_gives(runs, tmp_path, name, shape):
    output = tmp_path / "models" / "tiny.onnx"
    options = {
        "labels": ("evaluation.flips=[depth,width]", "evaluation.weighting=constant"),
        "stored": ("data.skull_stripped=false",),
    }
    if name in options:
        runs = {name: changed(runs[name], tmp_path / "run", *options[name])}
    (model, sheet), contents = export_onnx([runs[name]], output)
    assert model == output and sheet == tmp_path / "models" / "tiny.json"
    assert set((tmp_path / "models").iterdir()) == {model, sheet}
    patches, expected = patches_of(runs[name], shape)  # another size than the run's patches
    assert expected.std() > 0.05
    np.testing.assert_allclose(in_onnxruntime(output, patches), expected, atol=1e-4)
    np.testing.assert_allclose(in_openvino(output, patches), expected, atol=1e-4)
    assert json.loads(sheet.read_text()) == contents
    assert contents["dynamic_batch"] and contents["dynamic_size"]
    assert contents["check"]["largest_difference"] < 1e-4 and len(contents["check"]["patches"]) == 4
    assert contents["modalities"] == list(anatomy.MODALITIES)
    assert contents["regions"] == list(anatomy.TARGETS["labels" if name == "labels" else "regions"])
    assert contents["input"]["name"] == "patches"
    assert contents["air"].startswith("A voxel in which every modality is air")
    assert ("not skull-stripped" in contents["normalisation"]) == (name == "stored")
    assert contents["dimensions"] == (2 if name == "stored" else 3)
    check_the_script(runs[name], output)
    with pytest.raises(UserError, match="is there already"):
        export_onnx([runs[name]], output)


def stranger():
    """The script that needs numpy and onnxruntime alone."""
    spec = importlib.util.spec_from_file_location("stranger", "examples/onnx_predict.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def check_the_script(run, output):
    """A stranger with the two files, numpy and onnxruntime gets what `predict` gives."""
    volume = make_phantom((20, 27, 25), seed=5, index=1)[0].astype(np.float32)
    probabilities, label = stranger().predict(output, volume)
    expected = load(run).predict(volume)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-3)
    near = np.abs(expected.probabilities - 0.5).min(axis=-1) < 2e-3  # may be either
    assert 0 < (label > 0).mean() < 1 and near.mean() < 0.1
    np.testing.assert_array_equal(label[~near], expected.own_label({0: 0, 1: 1, 2: 2, 3: 3})[~near])


@pytest.mark.parametrize("norm", ["instance", pytest.param("group", marks=pytest.mark.all_only)])
def test_patches_of_mostly_air_are_exact(tmp_path, norm):
    """Keras's own sums over such a patch lose digits; those of the file do not."""
    groups = {"norm_groups": 2} if norm == "group" else {}
    settings = ModelSettings(features=(4,), bottleneck=6, norm=norm, **groups)
    keras.utils.set_random_seed(0)
    network = build_network(settings, 4)
    random = np.random.default_rng(0)
    for weight in network.weights:
        if len(weight.shape) == 1:  # biases and scales, as after a training
            weight.assign(weight + random.normal(0, 0.3, weight.shape))
    write_onnx(network, tmp_path / "a.onnx", "float32")
    patches = check_patches((16, 20, 18), 4, any_size=True)
    assert [patch.shape for patch in patches[1:]] == [
        (1, 16, 20, 18, 4), (1, 32, 20, 18, 4), (1, 24, 30, 27, 4)
    ]  # fmt: skip
    assert all(0.3 < (patch == 0).mean() < 0.95 for patch in patches[1:])
    twin, exported = exact_twin(network), OnnxNetwork(tmp_path / "a.onnx")
    assert largest_difference(twin, exported, patches) < 1e-4
    assert largest_difference(twin, exported, [in_air(48)]) < 1e-3
    found = in_openvino(tmp_path / "a.onnx", in_air(48))
    assert np.abs(found - np.asarray(twin(in_air(48)))).max() < 1e-3
    with_noise = np.asarray(network(patches[0], training=False))
    np.testing.assert_allclose(np.asarray(twin(patches[0])), with_noise, atol=1e-4)


def test_gelu_is_exact(tmp_path):
    """TensorFlow makes it of erfc, which tf2onnx does not know."""
    patches = keras.Input((None, None, 3))
    network = keras.Model(patches, keras.layers.Conv2D(2, 1, activation="gelu")(patches))
    write_onnx(network, tmp_path / "a.onnx", "float32")
    given = np.random.default_rng(0).normal(0, 4, (2, 5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(
        OnnxNetwork(tmp_path / "a.onnx").predict(given), network(given), atol=1e-5
    )


def in_air(size):
    """A patch (1, size, size, size, 4) that holds brain in a corner only."""
    patch = np.zeros((1, size, size, size, 4), np.float32)
    patch[0, -20:, -20:, -20:] = np.random.default_rng(2).standard_normal((20, 20, 20, 4))
    return patch


@pytest.mark.all_only  # int8 goes the same way
def test_float16_keeps_the_dice(runs, tmp_path):
    output = tmp_path / "tiny.onnx"
    _, contents = export_onnx([runs["stored"]], output, "float16", tolerance=0.02)
    dice = contents["dice"]
    assert dice["cases"] == 2 and 0 < dice["network"] < 1
    assert dice["exported"] == pytest.approx(dice["network"], abs=0.02)
    patches, expected = patches_of(runs["stored"], (2, 12, 16, 12))
    difference = np.abs(in_onnxruntime(output, patches) - expected).max()
    assert 1e-5 < difference < 0.05  # float32 would be nearer


def test_int8_is_measured_on_the_runs_cases(runs, tmp_path):
    output = tmp_path / "tiny.onnx"
    _, contents = export_onnx([runs["stored"]], output, "int8", tolerance=0.1)
    import onnx

    kinds = {node.op_type for node in onnx.load(output).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert abs(contents["dice"]["exported"] - contents["dice"]["network"]) <= 0.1
    assert contents["check"]["largest_difference"] > 1e-3 and contents["check"]["allowed"] is None


def test_a_run_without_its_store_has_no_dice_and_no_int8(runs, tmp_path):
    output = tmp_path / "tiny.onnx"
    with pytest.raises(UserError, match=r"int8 needs the run's own cases.*its record store"):
        export_onnx([runs["labels"]], output, "int8")
    assert not any(tmp_path.iterdir())
    _, contents = export_onnx([runs["labels"]], output, "float16")
    assert contents["dice"].startswith("not measured: ") and "record store" in contents["dice"]


@pytest.mark.parametrize("failing", ["numbers", "dice"])
def test_a_failed_check_leaves_no_file(runs, tmp_path, monkeypatch, failing):
    import onnx

    write = module.write_onnx

    def wrong(network, path, *rest):
        write(network, path, *rest)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" and values.size > 1:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 1.5, tensor.name))
        onnx.save(model, path)

    monkeypatch.setattr(module, "write_onnx", wrong)
    precision, sentence = "float32", "differs from .* by .* and 0.001 is allowed"
    if failing == "dice":
        monkeypatch.setitem(module.LARGEST_DIFFERENCE, "float16", 1.0)
        dices = iter([(0.9, 2), (0.5, 2)])  # of the network, of the file with other weights
        monkeypatch.setattr(module._RunCases, "mean_dice", lambda *_: next(dices))
        precision, sentence = "float16", "it loses more than"
    with pytest.raises(UserError, match=sentence):
        export_onnx([runs["stored"]], tmp_path / "tiny.onnx", precision)
    assert not any(tmp_path.iterdir())


def test_several_runs_and_names(runs, tmp_path):
    with pytest.raises(UserError, match="takes one run, and 2"):
        export_onnx([runs["stored"], runs["slices"]], tmp_path / "tiny.onnx")
    with pytest.raises(UserError, match=r"--format onnx is written to models/NAME\.onnx"):
        export_onnx([runs["stored"]], tmp_path / "tiny")


def test_the_command_says_how_far_it_is(runs, tmp_path, capsys):
    output = tmp_path / "tiny.onnx"
    assert run_here("export", str(runs["stored"]), "-o", str(output), "--format", "onnx") == 0
    said = capsys.readouterr().out
    assert "largest difference of a probability" in said
    assert "0.001 is allowed" in said and "tiny.json" in said


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"format": "onnx", "largest_volume": 9}, "--largest-volume is an option of .*savedmodel"),
        ({"format": "onnx", "gzip": False}, "--gzip is an option of --format savedmodel"),
        ({"format": "onnx", "combine": "vote"}, "--combine is an option of --format savedmodel"),
        ({"precision": "int8"}, "--precision is an option of --format onnx, not of savedmodel"),
        ({"tolerance": 0.1}, "--tolerance is an option of --format onnx"),
        ({"format": "onnx", "tolerance": 0.1}, "--tolerance is an option of --precision float16"),
        (
            {"format": "onnx", "arguments": ["run", "evaluation.flips=[width]"]},
            r"evaluation.flips=\[width\] does not change",
        ),
        ({"format": "openvino"}, r"no longer written.*openvino\.convert_model.*ovc"),
        ({"format": "litert"}, r"no longer written.*--format onnx.*TFLiteConverter"),
        ({"format": "torch"}, "--format torch: expected savedmodel or onnx"),
    ],
)
def test_options_that_have_no_effect_are_refused(tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        export(**{"arguments": ["run"], "output": tmp_path / "x", **options})


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "tf2onnx":
            raise ImportError(f"No module named {name}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"tf2onnx is missing.*pip install 'kerasseg\[formats\]'"):
        export_onnx([tmp_path], tmp_path / "tiny.onnx")
