import re
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


def test_a_slice_takes_the_weights_and_activations_of_a_2d_network(monkeypatch):
    """All weights are counted (biases and norms apart), and activations shrink by 4 a level."""
    experiment = load_experiment(None, [*FLAT, "training.batch_size=1"])
    none = memory.step_bytes(experiment, (0, 0), 4) - memory._WORKSPACE_BYTES
    assert none == pytest.approx(20 * build_network(experiment).count_params(), rel=0.01)
    levels = ((32, 1), (64, 4), (128, 16), (256, 64), (512, 256))
    values = sum(256 * 256 / shrunk * channels for channels, shrunk in levels)
    found = memory.step_bytes(experiment, (256, 256), 4) - memory.step_bytes(experiment, (0, 0), 4)
    assert found == pytest.approx(values * memory._ACTIVATIONS_PER_LEVEL * 4)


def test_3d_weights_are_counted_too():
    experiment = load_experiment(None)
    none = memory.step_bytes(experiment, (0, 0, 0), 4) - memory._WORKSPACE_BYTES
    assert none == pytest.approx(20 * build_network(experiment).count_params(), rel=0.01)


def test_neighbouring_slices_count_as_input_channels():
    size = memory.step_bytes(load_experiment(None, FLAT), (256, 256), 4)
    wide = load_experiment(None, [*FLAT, "pipeline.slices.neighbours=8"])
    assert memory.step_bytes(wide, (256, 256), 4) - size == 20 * 9 * 4 * 16 * 32


def test_the_suggested_slice_fits(monkeypatch):
    available(monkeypatch, 2)
    large = load_experiment(None, ["model.dimensions=2", "pipeline.patch_size=[1024,512]"])
    with pytest.raises(UserError, match=r"pipeline.patch_size \[1024, 512\]") as error:
        memory.check_memory(large, "float32")
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", str(error.value))
    memory.check_memory(load_experiment(None, ["model.dimensions=2", override]), "float32")
