"""Run folders that were written by hand, and one of them exported."""

import json
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from kerasseg.records.store import open_store
from kerasseg.serving.export import export_runs
from tests.conftest import phantom_experiment
from tests.run_folders import SLICES, SMALL, write_run

CLEANED = (
    "evaluation.flips=[width]",
    "postprocessing.keep_largest=[WT]",
    "postprocessing.fill_holes=[WT]",
    "postprocessing.minimum_volume={ET: 5}",
    "postprocessing.minimum_enhancing=9",
)


def write_runs(root: Path) -> None:
    """Write the runs of the fixture `runs` into the folder `root`."""
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
        "stored": phantom_experiment(root / "data", *SLICES, "pipeline.slices.neighbours=1"),
    }
    for seed, (name, experiment) in enumerate(experiments.items()):
        write_run(root / name, experiment, seed)
    dice = {"test": {"WT": 0.9}}
    (root / "cleaned" / "summary.json").write_text(json.dumps({"dice": dice}))
    seen = {"data_fingerprint": "", "voxel_sizes": [[1, 1, 1], [1, 1, 1.5]]}
    (root / "cleaned" / "environment.json").write_text(json.dumps(seen))
    store = open_store(experiments["stored"])
    ids = list(store.rows)
    split = {"train": ids[:2], "validation": ids[2:4], "test": []}
    fingerprint = {"data_fingerprint": store.manifest.data_fingerprint}
    (root / "stored" / "split.json").write_text(json.dumps(split))
    (root / "stored" / "environment.json").write_text(json.dumps(fingerprint))
    keras.backend.clear_session()


@pytest.fixture(scope="session")
def runs(shared_once) -> dict[str, Path]:
    """Run folders by name. Not to be changed.

    cleaned, other: 3-D, regions, the first with all of post-processing. labels: 3-D softmax.
    slices: 2-D regions with neighbours. thick: 3-D, of voxels of 3 x 1 x 1 mm. stored: 2-D with
    neighbours, finished, the only one with its store.
    """
    root = shared_once("serving_runs", write_runs)
    return {
        name: root / name for name in ("cleaned", "other", "labels", "slices", "thick", "stored")
    }


@pytest.fixture(scope="session")
def exported(runs, shared_once) -> Path:
    """The folder of version 1 of the model `brain`, the run `cleaned`."""

    def build(folder: Path) -> None:
        export_runs([runs["cleaned"]], folder / "brain", largest_volume=20_000)

    return shared_once("exported_model", build) / "brain" / "1"


@pytest.fixture(scope="session")
def loaded(exported):
    return tf.saved_model.load(str(exported))
