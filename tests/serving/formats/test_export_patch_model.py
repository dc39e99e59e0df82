"""Every format in its own runtime against the Keras network, and what is refused."""

import json

import keras
import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.errors import UserError
from kerasseg.serving.formats import export_patch_model as flow
from kerasseg.serving.formats.export_patch_model import PatchModelWanted, export_patch_model

NAMES = {"onnx": "tiny.onnx", "litert": "tiny.tflite", "openvino": "tiny"}


def predict(wanted, path, patches):
    """The runtimes as their own documentation has them, without kerasseg."""
    if wanted == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.run(["probabilities"], {"patches": patches})[0]
    if wanted == "openvino":
        import openvino

        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        return openvino.Core().compile_model(path / "tiny.xml", "CPU", hint)(patches)[0]
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], patches.shape)
    runner = interpreter.get_signature_runner()
    return runner(patches=patches)["probabilities"]


def patches_of(run, shape):
    """Scaled and shifted noise, other than what the export itself checks, and Keras's answer."""
    patches = np.random.default_rng(8).normal(0.3, 1.5, shape).astype(np.float32)
    network = keras.saving.load_model(run / "checkpoints" / "best.keras", compile=False)
    return patches, network.predict(patches, verbose=0)


@pytest.mark.parametrize(
    "wanted, name",
    [
        ("onnx", "volumes"),
        ("onnx", "slices"),
        ("openvino", "volumes"),
        ("openvino", "slices"),
        ("litert", "slices"),
        ("litert", "strided"),
    ],
)
def test_a_format_gives_what_the_network_gives(runs, tmp_path, wanted, name):
    output = tmp_path / "models" / NAMES[wanted]
    (model, sheet), told = export_patch_model([runs[name]], output, PatchModelWanted(wanted))
    assert model == output and sheet == tmp_path / "models" / "tiny.json"
    assert set((tmp_path / "models").iterdir()) == {model, sheet}
    shape = (3, 16, 32, 12, 4) if name != "slices" else (3, 24, 48, 12)
    patches, expected = patches_of(runs[name], shape)  # another size than the run's patches
    np.testing.assert_allclose(predict(wanted, output, patches), expected, atol=1e-4)
    assert expected.std() > 0.05
    assert json.loads(sheet.read_text()) == told
    assert told["dynamic_batch"] and told["dynamic_size"]
    assert told["check"]["largest_difference"] < 1e-4 and len(told["check"]["patches"]) == 3
    assert told["modalities"] == list(anatomy.MODALITIES)
    assert told["regions"] == ["WT", "TC", "ET"] and told["input"]["name"] == "patches"
    assert told["dimensions"] == (2 if name == "slices" else 3)
    with pytest.raises(UserError, match="is there already"):
        export_patch_model([runs[name]], output, PatchModelWanted(wanted))


@pytest.mark.parametrize("wanted", list(NAMES))
def test_float16_keeps_the_dice(runs, tmp_path, wanted):
    output = tmp_path / NAMES[wanted]
    asked = PatchModelWanted(wanted, "float16", tolerance=0.02)
    _, told = export_patch_model([runs["slices"]], output, asked)
    dice = told["dice"]
    assert dice["cases"] == 2 and 0 < dice["network"] < 1
    assert dice["exported"] == pytest.approx(dice["network"], abs=0.02)
    patches, expected = patches_of(runs["slices"], (2, 12, 16, 12))
    difference = np.abs(predict(wanted, output, patches) - expected).max()
    assert 1e-5 < difference < 0.05  # float32 would be nearer


def test_int8_is_measured_on_the_runs_cases(runs, tmp_path):
    output = tmp_path / "tiny.onnx"
    asked = PatchModelWanted("onnx", "int8", tolerance=0.1)
    _, told = export_patch_model([runs["slices"]], output, asked)
    import onnx

    kinds = {node.op_type for node in onnx.load(output).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert abs(told["dice"]["exported"] - told["dice"]["network"]) <= 0.1
    assert told["check"]["largest_difference"] > 1e-3 and told["check"]["allowed"] is None


def test_int8_of_litert_has_the_size_of_the_patches(runs, tmp_path):
    """Ranges that are found for any size make every probability wrong."""
    output = tmp_path / "batch.tflite"
    asked = PatchModelWanted("litert", "int8", tolerance=0.1)
    _, told = export_patch_model([runs["batch"]], output, asked)
    assert told["input"]["shape"] == [None, 12, 16, 12] and not told["dynamic_size"]
    assert abs(told["dice"]["exported"] - told["dice"]["network"]) <= 0.1
    patches, expected = patches_of(runs["batch"], (2, 12, 16, 12))
    assert 1e-4 < np.abs(predict("litert", output, patches) - expected).mean() < 0.05


@pytest.mark.parametrize(
    "name, wanted, precision, words",
    [
        ("volumes", "litert", "float32", "no operation for its MaxPooling3D"),
        ("volumes", "openvino", "int8", "nncf"),
        ("volumes", "onnx", "int8", r"int8 needs the run's own cases.*split\.json"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(runs, tmp_path, name, wanted, precision, words):
    with pytest.raises(UserError, match=words):
        export_patch_model(
            [runs[name]], tmp_path / NAMES[wanted], PatchModelWanted(wanted, precision)
        )
    assert not any(tmp_path.iterdir())


def test_a_run_without_its_store_has_no_dice(runs, tmp_path):
    asked = PatchModelWanted("openvino", "float16")
    _, told = export_patch_model([runs["volumes"]], tmp_path / "tiny", asked)
    assert told["dice"].startswith("not measured: ") and "split.json" in told["dice"]


@pytest.mark.parametrize("failing", ["numbers", "dice"])
def test_a_failed_check_leaves_no_file(runs, tmp_path, monkeypatch, failing):
    write = flow.write_model

    def wrong(network, path, *rest):
        other = keras.models.clone_model(network)  # other weights
        return write(other, path, *rest)

    monkeypatch.setattr(flow, "write_model", wrong)
    asked, words = PatchModelWanted("onnx"), "differs by .* and 0.001 is allowed"
    if failing == "dice":
        monkeypatch.setitem(flow.LARGEST, "float16", 1.0)
        asked, words = PatchModelWanted("onnx", "float16", tolerance=0.0), "it loses more than"
    with pytest.raises(UserError, match=words):
        export_patch_model([runs["slices"]], tmp_path / "tiny.onnx", asked)
    assert not any(tmp_path.iterdir())


def test_several_runs_and_names(runs, tmp_path):
    with pytest.raises(UserError, match="takes one run, and 2"):
        export_patch_model(
            [runs["slices"], runs["batch"]], tmp_path / "tiny.onnx", PatchModelWanted("onnx")
        )
    for wanted, name in (("onnx", "tiny"), ("litert", "tiny.onnx"), ("openvino", "tiny.xml")):
        with pytest.raises(UserError, match=f"--format {wanted} is written to"):
            export_patch_model([runs["slices"]], tmp_path / name, PatchModelWanted(wanted))
