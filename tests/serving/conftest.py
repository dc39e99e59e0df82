"""A server in a process of its own, with a model whose answers NumPy knows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_model import write_model
from benchmarks.serving_process import ServingProcess, serving
from tests.conftest import SHAPE
from tests.program import start_program

MIB = 2**20
LIMITS = ("--request-mib", "8", "--volume-mib", "32", "--timeout", "20", "--poll", "0.2")


@pytest.fixture(scope="session")
def models(shared_once) -> Path:
    """A folder with version 1 of the model `kerasseg`, and with files and folders that are no
    model. Not to be changed."""

    def build(root: Path) -> None:
        write_model(root / "kerasseg" / "1")
        (root / "models.config").write_text("model_config_list {}")
        (root / "kerasseg" / "notes").mkdir()

    return shared_once("tiny_models", build)


@pytest.fixture(scope="session")
def server(models) -> ServingProcess:
    """A server of `models` under small limits."""
    with serving(models, *LIMITS, start=start_program) as running:
        yield running


@pytest.fixture
def volume() -> np.ndarray:
    """(D, H, W, 4) float32 of whole numbers around the model's threshold."""
    return np.random.default_rng(1).integers(0, 200, (*SHAPE, 4)).astype(np.float32)
