"""Run folders that were written by hand, with the store and the split that Dice needs."""

import json
from pathlib import Path

import keras
import pytest

from kerasseg.records.store import open_store
from tests.conftest import phantom_experiment
from tests.run_folders import SLICES, SMALL, write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """volumes: 3-D, without its store; strided: without pooling, too. slices: 2-D with neighbours,
    finished, with its store; batch: with another normalisation, too."""
    root = tmp_path_factory.mktemp("runs")
    volumes = phantom_experiment(root / "none", *SMALL)
    strided = phantom_experiment(root / "none", *SMALL, "model.downsampling=strided")
    slices = phantom_experiment(root / "data", *SLICES, "pipeline.slices.neighbours=1")
    batch = phantom_experiment(
        root / "data", *SLICES, "pipeline.slices.neighbours=1", "model.norm=batch"
    )
    experiments = {"volumes": volumes, "strided": strided, "slices": slices, "batch": batch}
    for seed, (name, experiment) in enumerate(experiments.items()):
        write_run(root / name, experiment, seed)
    store = open_store(slices)
    ids = list(store.rows)
    split = {"train": ids[:2], "validation": ids[2:4], "test": []}
    fingerprint = {"data_fingerprint": store.manifest.data_fingerprint}
    for name in ("slices", "batch"):
        (root / name / "split.json").write_text(json.dumps(split))
        (root / name / "environment.json").write_text(json.dumps(fingerprint))
    keras.backend.clear_session()
    return {name: root / name for name in experiments}
