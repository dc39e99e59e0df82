"""A server in a process of its own, with a model whose answers NumPy knows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_model import write_model
from benchmarks.serving_process import ServingProcess, serving
from tests.conftest import SHAPE

MIB = 2**20
LIMITS = ("--request-mib", "8", "--volume-mib", "32", "--timeout", "20", "--poll", "0.2")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with version 1 of the model `kerasseg`, and what is no model. Not to be changed."""
    root = tmp_path_factory.mktemp("models")
    write_model(root / "kerasseg" / "1")
    (root / "models.config").write_text("model_config_list {}")
    (root / "kerasseg" / "notes").mkdir()
    return root


@pytest.fixture(scope="session")
def server(models) -> ServingProcess:
    """It serves `models` under small limits."""
    with serving(models, *LIMITS) as running:
        yield running


@pytest.fixture
def volume() -> np.ndarray:
    """(D, H, W, 4) float32 of whole numbers around the model's threshold."""
    return np.random.default_rng(1).integers(0, 200, (*SHAPE, 4)).astype(np.float32)
