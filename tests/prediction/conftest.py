"""Run folders that were written by hand: nothing is trained here."""

from pathlib import Path

import keras
import pytest

from kerasseg.config.load import load_experiment
from tests.conftest import SHAPE, TINY, phantom_experiment
from tests.run_folders import SLICES, SMALL, write_run


@pytest.fixture(scope="session")
def runs(shared_once) -> dict[str, Path]:
    """Run folders by name. Not to be changed.

    volumes and other: 3-D, regions of four modalities. labels: 3-D softmax. slices: 2-D, regions
    of two modalities. pictures: 2-D, binary, of grey pictures of 16 x 20 pixels."""
    names = ("volumes", "other", "labels", "slices", "pictures")
    root = shared_once("prediction_runs", write_runs)
    return {name: root / name for name in names}


def write_runs(root: Path) -> None:
    slices = f"data.h5_slices={SHAPE[0]}"
    experiments = {
        "volumes": phantom_experiment(root, *SMALL, slices),
        "other": phantom_experiment(root, *SMALL, slices),
        "labels": phantom_experiment(root, *SMALL, "model.target=labels"),
        "slices": phantom_experiment(root, *SLICES, "data.modalities=[t2,flair]"),
        "pictures": load_experiment(
            None,
            [
                *TINY,
                *SLICES,
                "model.target=binary",
                "data.layout=image_pairs",
                "data.root=gone",
                "data.size=[16,20]",
            ],
        ),
    }
    for seed, (name, experiment) in enumerate(experiments.items()):
        write_run(root / name, experiment, seed)
    keras.backend.clear_session()
