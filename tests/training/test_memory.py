import re
from types import SimpleNamespace

import pytest

from kerasseg.config_file import load_experiment
from kerasseg.errors import UserError
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
