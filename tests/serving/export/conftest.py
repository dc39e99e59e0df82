"""Run folders that were written by hand, and one of them exported."""

import json
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from kerasseg.serving.export import Wanted, export_runs
from tests.conftest import phantom_experiment
from tests.run_folders import SLICES, SMALL, write_run

CLEANED = (
    "evaluation.flips=[width]",
    "postprocessing.keep_largest=[WT]",
    "postprocessing.fill_holes=[WT]",
    "postprocessing.minimum_volume={ET: 5}",
    "postprocessing.minimum_enhancing=9",
)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """cleaned, other: 3-D, regions, the first with all of post-processing. labels: 3-D softmax.
    slices: 2-D regions with neighbours. thick: 3-D, of voxels of 3 x 1 x 1 mm."""
    root = tmp_path_factory.mktemp("runs")
    experiments = {
        "cleaned": phantom_experiment(root, *SMALL, *CLEANED),
        "other": phantom_experiment(root, *SMALL),
        "labels": phantom_experiment(
            root, *SMALL, "model.target=labels", "evaluation.window_batch=3"
        ),
        "slices": phantom_experiment(
            root, *SLICES, "pipeline.slices.axis=coronal", "pipeline.slices.neighbours=1"
        ),
        "thick": phantom_experiment(root, *SMALL, "data.spacing=[3,1,1]"),
    }
    for seed, (name, experiment) in enumerate(experiments.items()):
        write_run(root / name, experiment, seed)
    dice = {"test": {"WT": 0.9}}
    (root / "cleaned" / "summary.json").write_text(json.dumps({"dice": dice}))
    keras.backend.clear_session()
    return {name: root / name for name in experiments}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def exported(runs, models) -> Path:
    """The folder of version 1 of the run `cleaned`."""
    return export_runs([runs["cleaned"]], models / "brain", Wanted(largest_volume=20_000))[0]


@pytest.fixture(scope="session")
def loaded(exported):
    return tf.saved_model.load(str(exported))
