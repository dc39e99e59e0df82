"""A whole run of a tiny SAM: trained, evaluated, predicted with, exported and served, compared."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.load import load_experiment
from kerasseg.datasets.discovery import discover
from kerasseg.models.sam.weights import COMPONENTS
from kerasseg.prediction.model import load, load_run
from kerasseg.records.store import open_store
from kerasseg.run_experiment import run_experiment
from kerasseg.training.checks import memory_warning
from tests.conftest import phantom_experiment
from tests.program import draw_no_figures
from tests.run_folders import not_written

SAM = (
    "model={dimensions: 2, target: binary, network: sam}",
    "model.sam={encoder: vit_xs, side: 32, weights: none}",
    "data.modalities=[flair]",
    "data.normalisation=percentiles",
    "pipeline.patch_size=[24,22]",
)


def sam_experiment(folder, *overrides):
    """Slices of the phantoms; without the U-Net's settings of `phantom_experiment`."""
    ours = phantom_experiment(folder)
    base = (
        "data.phantom={cases: 6, shape: [18, 24, 22], seed: 5}",
        f"records.root={folder / 'store'}",
        f"run.root={ours.run.root}",
        "run.name=tiny_sam",
        "records.workers=1",
        "pipeline.patches_per_volume=4",
        "training={epochs: 1, batch_size: 4, steps_per_epoch: 1, gradient_accumulation: 1}",
        "pipeline.validation_patches_per_volume=2",
        "evaluation.overlays=1",
    )
    return load_experiment(None, [*SAM, *base, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The experiment, its run folder, and the untrained run that it started from."""
    folder = tmp_path_factory.mktemp("sam")
    untrained = ("training.epochs=0", "run.name=untrained")
    start = run_experiment(sam_experiment(folder, *untrained), evaluated=False)
    experiment = sam_experiment(folder, f"model.sam.weights={start}")
    with pytest.MonkeyPatch.context() as patched:
        draw_no_figures(patched.setattr)
        return experiment, run_experiment(experiment), start


def test_stopped_in_its_first_epoch_it_goes_on_with_the_encoders_that_it_began_with(
    finished, tmp_path, monkeypatch
):
    """Its state holds the decoder alone, and there is no best network yet."""
    _, folder, start = finished
    shutil.copytree(folder, tmp_path / folder.name)
    (tmp_path / folder.name / "checkpoints" / "best.keras").unlink()
    seen = []

    def stop(experiment, network, *rest, state, **options):
        seen.append((network.get_layer("image_encoder").get_weights(), state))
        raise KeyboardInterrupt

    monkeypatch.setattr("kerasseg.run_experiment.fit", stop)
    weights = f"model.sam.weights={start}"
    again = sam_experiment(start.parents[1], weights, f"run.root={tmp_path}")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(again, resume=True)
    began = keras.saving.load_model(start / "checkpoints" / "best.keras")
    expected = began.get_layer("image_encoder").get_weights()
    ((found, state),) = seen
    assert state == tmp_path / folder.name / "checkpoints" / "state.npz"
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_both_encoders_are_bit_identical_afterwards_and_the_decoder_is_not(finished):
    _, *folders = finished
    trained, start = (keras.saving.load_model(f / "checkpoints" / "best.keras") for f in folders)
    assert json.loads((folders[1] / "summary.json").read_text())["epochs"] == 0
    same = {
        name: all(
            np.array_equal(a, b)
            for a, b in zip(
                trained.get_layer(name).get_weights(),
                start.get_layer(name).get_weights(),
                strict=True,
            )
        )
        for name in COMPONENTS
    }
    assert same == {"image_encoder": True, "prompt_encoder": True, "mask_decoder": False}


def test_it_is_evaluated_and_predicts_raw_cases_as_their_records(finished):
    experiment, folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 1 and summary["prompt"] == {"validation": "none", "test": "none"}
    assert 0 < summary["trained_parameters"] < summary["parameters"]
    assert (folder / "report.html").exists() and memory_warning(experiment, "float32") is None
    case = discover(experiment.data)[0].load()
    found = load_run(folder).probabilities(case)
    assert found.shape == (18, 24, 22, 1) and found.std() > 0
    stored = open_store(experiment).load(case.case_id)
    assert stored.case.image.min() == 0 and stored.case.image.max() == 1


def test_the_exported_graph_gives_the_same_masks(finished):
    """test_sam_like_others writes and serves it."""
    experiment, folder, _ = finished
    case = discover(experiment.data)[0].load()
    model = load(folder)
    found = not_written(model).signatures["segment"](
        volume=tf.constant(case.image),
        spacing=tf.ones(3),
        probabilities=tf.constant(True),
    )["probabilities"]
    expected = model.predict(case.image).probabilities
    np.testing.assert_allclose(found, expected, atol=2e-5)
