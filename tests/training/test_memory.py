import re
import time
from types import SimpleNamespace

import pytest

from kerasseg.config_file import load_experiment
from kerasseg.errors import UserError
from kerasseg.experiment import build_network
from kerasseg.training import memory

GIB = 2**30


def available(monkeypatch, gib):
    free = SimpleNamespace(available=gib * GIB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)


def test_a_patch_that_fits_passes_and_the_suggested_one_fits(monkeypatch):
    available(monkeypatch, 24)
    check = memory.check_memory
    small = load_experiment(None, ["pipeline.patch_size=[32,64,64]"])
    check(small, "float32")
    available(monkeypatch, 4)
    large = load_experiment(None)
    with pytest.raises(UserError) as error:
        check(large, "float32")
    message = str(error.value)
    assert "[64, 160, 160]" in message and "4.3 GB are available" in message
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", message)
    check(load_experiment(None, [override]), "float32")


def test_the_estimate_grows_with_patch_batch_and_features():
    base = load_experiment(None)
    size = memory.step_bytes(base, (64, 64, 64), 4)
    assert memory.step_bytes(base, (128, 64, 64), 4) > 1.5 * size
    assert memory.step_bytes(base, (64, 64, 64), 2) < size
    wide = load_experiment(None, ["model.features=[64,128,256,512]"])
    assert memory.step_bytes(wide, (64, 64, 64), 4) > 1.9 * size
    more = load_experiment(None, ["training.batch_size=4"])
    assert memory.step_bytes(more, (64, 64, 64), 4) > 1.4 * size


FLAT = ("model.dimensions=2", "pipeline.patch_size=[256,256]")
RESENC_M = (
    "model.features=[32,64,128,256,320]",
    "model.bottleneck=320",
    "model.encoder_blocks=[1,3,4,6,6,6]",
    "model.decoder_blocks=1",
    "model.residual=encoder",
    "model.downsampling=strided",
    "model.deep_supervision=4",
    "pipeline.patch_size=[160,192,160]",
)


def nothing(experiment):
    """Bytes of no voxels at all: the weights'."""
    zero = (0,) * experiment.model.dimensions
    return memory.step_bytes(experiment, zero, 4) - memory._WORKSPACE_BYTES


@pytest.mark.parametrize("overrides", [FLAT, (), ("model.residual=both", "model.kernel=1")])
def test_all_weights_are_counted(overrides):
    experiment = load_experiment(None, list(overrides))
    assert nothing(experiment) == 20 * build_network(experiment).count_params()


def test_every_copy_of_the_weights_is_counted():
    """Weights, gradients, accumulated gradients; then what the optimiser keeps."""
    copies = {"adam": 5, "sgd": 4, "lion": 4}
    for name, count in copies.items():
        for ema, more in (("null", 0), ("0.99", 1)):
            experiment = load_experiment(
                None, [f"optimizer={{name: {name}, ema: {ema}}}", "model.features=[4,8]"]
            )
            parameters = build_network(experiment).count_params()
            assert nothing(experiment) == 4 * (count + more) * parameters


def test_a_slice_takes_what_goes_in_and_out_of_layers():
    """Two times three outputs on both sides, upsampled, concatenated; pooled, padded and output."""
    experiment = load_experiment(None, [*FLAT, "training.batch_size=1"])
    widths = ((32, 1), (64, 4), (128, 16), (256, 64))
    levels = sum(256 * 256 // shrunk * channels * 15 for channels, shrunk in widths)
    pooled = sum(256 * 256 // shrunk // 4 * channels for channels, shrunk in widths)
    ends = 256 * 256 * (4 + 4 + 4 * 3)  # image and padded image; head, cropped, logits, output
    values = levels + pooled + ends + 256 * 512 * 6
    found = memory.step_bytes(experiment, (256, 256), 4) - memory.step_bytes(experiment, (0, 0), 4)
    assert found == pytest.approx(values * memory._LIVE_SHARE * 4)


def test_a_patch_counts_as_it_is_padded():
    experiment = load_experiment(None, list(FLAT))
    whole = memory.step_bytes(experiment, (256, 192), 4)
    assert memory.step_bytes(experiment, (241, 177), 4) == whole
    assert memory.step_bytes(experiment, (240, 192), 4) < whole


def test_neighbouring_slices_count_as_input_channels():
    size = memory.step_bytes(load_experiment(None, FLAT), (256, 256), 4)
    wide = load_experiment(None, [*FLAT, "pipeline.slices.neighbours=8"])
    weights, image = 20 * 9 * 4 * 16 * 32, 2 * 256 * 256 * 4 * 16 * 2
    expected = weights + image * memory._LIVE_SHARE * 4
    assert memory.step_bytes(wide, (256, 256), 4) - size == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(
    ("override", "least", "most"),
    [
        ("model.encoder_blocks=4", 1.2, 1.5),
        ("model.residual=both", 2.0, 2.5),
        ("model.norm=none", 0.6, 0.8),
        ("model.attention_gates=true", 1.02, 1.1),
        ("model.upsampling=interpolate", 1.05, 1.3),
        ("model.deep_supervision=3", 1.0, 1.01),
    ],
)
def test_every_part_of_the_network_counts(override, least, most):
    def activations(*overrides):
        experiment = load_experiment(None, [*FLAT, *overrides])
        whole, none = (memory.step_bytes(experiment, (n, n), 4) for n in (256, 0))
        return whole - none

    assert least < activations(override) / activations() < most


def test_a_pretrained_network_is_counted_without_its_weights(monkeypatch):
    """Nothing is read or downloaded for it."""
    network = "model.network=pretrained_unet"
    encoder = "model.pretrained={encoder: mobilenetv2, weights: missing.h5}"
    experiment = load_experiment(None, [*FLAT, network, encoder, "training.batch_size=8"])
    small = memory.step_bytes(experiment, (64, 64), 4)
    assert memory.step_bytes(experiment, (256, 256), 4) > small > nothing(experiment)
    available(monkeypatch, 1)
    with pytest.raises(UserError, match=r"model.pretrained.decoder_features \[16, 32, 64"):
        memory.check_memory(experiment, "float32")


def test_a_large_network_is_searched_quickly(monkeypatch):
    available(monkeypatch, 16)
    large = load_experiment(None, list(RESENC_M))
    started = time.process_time()
    with pytest.raises(UserError) as error:
        memory.check_memory(large, "float32")
    assert time.process_time() - started < 5
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", str(error.value))
    memory.check_memory(load_experiment(None, [*RESENC_M, override]), "float32")


def test_the_suggested_slice_fits(monkeypatch):
    available(monkeypatch, 2)
    large = load_experiment(None, ["model.dimensions=2", "pipeline.patch_size=[1024,512]"])
    with pytest.raises(UserError, match=r"pipeline.patch_size \[1024, 512\]") as error:
        memory.check_memory(large, "float32")
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", str(error.value))
    memory.check_memory(load_experiment(None, ["model.dimensions=2", override]), "float32")
