r"""Files that the program wrote before its files were rebuilt still work.

`before_house.tar.xz` was made by commit da8f6a3 with

    python train.py run.name=before run.root=runs records.root=store records.workers=1 \
        'data.phantom={cases: 8, shape: [18,24,22], seed: 5}' 'pipeline.patch_size=[8,16,12]' \
        pipeline.patches_per_volume=2 'model.features=[4,6]' model.bottleneck=8 \
        training.epochs=2 training.gradient_accumulation=1 optimizer.learning_rate=0.01
    kerasseg export runs/before --output exported

The run `stopped` has the same settings and was stopped by SIGTERM after its first epoch.
`expected.npz` holds what `kerasseg.load("runs/before").predict` gave for phantom 1 of seed 5.
Figures and TensorBoard's files were left out.
"""

import csv
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasseg
from kerasseg.datasets.phantom import make_phantom
from tests.conftest import SHAPE
from tests.program import NO_FIGURES, REPOSITORY, run_program

ARCHIVE = Path(__file__).with_name("before_house.tar.xz")
NEEDS_ITS_KERAS = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15),
    reason="Keras 3.15 wrote the network, which older versions do not read",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with runs/before, store, exported/1 and expected.npz."""
    found = tmp_path_factory.mktemp("before_house")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(found, filter="data")
    return found


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_phantom(SHAPE, seed=5, index=1)[0]


@NEEDS_ITS_KERAS
def test_the_checkpoint_predicts_what_it_predicted(folder, image):
    prediction = kerasseg.load(folder / "runs" / "before").predict(image)
    expected = np.load(folder / "expected.npz")
    np.testing.assert_allclose(prediction.probabilities, expected["probabilities"], atol=1e-5)
    assert np.count_nonzero(prediction.label != expected["label"]) <= 3


def test_the_exported_model_answers_as_it_did(folder, image):
    model = tf.saved_model.load(str(folder / "exported" / "1"))
    answer = model.signatures["segment"](
        volume=tf.constant(image.astype(np.float32)),
        spacing=tf.constant([1.0, 1.0, 1.0]),
        probabilities=tf.constant(True),
    )
    expected = np.load(folder / "expected.npz")
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], atol=1e-4)


def test_the_store_is_used_and_the_run_goes_on(folder):
    """Training goes on from the old state, on the old records, which are not converted anew."""
    shard = folder / "store" / "shard-00000.tfrecord"
    written = shard.stat().st_mtime_ns
    config = folder / "runs" / "stopped" / "config.yaml"
    done = run_program(
        [REPOSITORY / "train.py", "--config", config, "--resume"], cwd=folder, env=NO_FIGURES
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "runs" / "stopped" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert shard.stat().st_mtime_ns == written


@NEEDS_ITS_KERAS
def test_the_run_is_evaluated(folder):
    """It can be scored with what its own checkpoint and store say."""
    command = ["-m", "kerasseg.cli", "evaluate", "runs/before"]
    done = run_program(command, cwd=folder, env=NO_FIGURES)
    assert done.returncode == 0, done.stdout + done.stderr
