"""Run folders that were written by hand, with the store and the split that Dice needs."""

import json
from pathlib import Path

import keras
import pytest

from kerasseg.records.store import open_store
from tests.conftest import phantom_experiment
from tests.inference.test_load_run import SLICES, SMALL, write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """volumes: 3-D, without its store. slices: 2-D with neighbours, finished, with its store."""
    root = tmp_path_factory.mktemp("runs")
    volumes = phantom_experiment(root / "volumes_data", *SMALL)
    slices = phantom_experiment(root / "slices_data", *SLICES, "pipeline.slices.neighbours=1")
    write_run(root / "volumes", volumes)
    write_run(root / "slices", slices, 1)
    store = open_store(slices)
    ids = list(store.rows)
    split = {"train": ids[:2], "validation": ids[2:4], "test": []}
    (root / "slices" / "split.json").write_text(json.dumps(split))
    fingerprint = {"data_fingerprint": store.manifest.data_fingerprint}
    (root / "slices" / "environment.json").write_text(json.dumps(fingerprint))
    keras.backend.clear_session()
    return {"volumes": root / "volumes", "slices": root / "slices"}
