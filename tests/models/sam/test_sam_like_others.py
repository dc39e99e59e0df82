"""A SAM run is taken like any other: predicted with, served, exported, tuned, resumed, in folds."""

import json

import keras
import nibabel as nib
import numpy as np
import pytest

from kerasseg.datasets.discovery import discover
from kerasseg.evaluation import compare_runs as compare_module
from kerasseg.evaluation import report
from kerasseg.evaluation.compare_runs import compare_runs
from kerasseg.evaluation.evaluate_runs import evaluate_runs
from kerasseg.prediction.model import load_run
from kerasseg.prediction.predict import Arguments, predict
from kerasseg.run import read_history, read_run
from kerasseg.run_experiment import run_experiment
from kerasseg.serving.export import export_runs
from kerasseg.serving.export_onnx import export_onnx
from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.loaded_version import LoadedVersion
from kerasseg.tuning.trial import run_job
from kerasseg.tuning.trial_process import TrialJob
from tests.conftest import phantom_experiment, to_file_axes, write_nifti
from tests.models.sam.test_sam_run import sam_experiment
from tests.run_folders import make_run
from tests.serving.export.test_export_onnx import stranger

OBLIQUE = np.array([[0, 0, 1.25, 3], [-0.75, 0.5, 0, 40], [0.25, 2, 0, -9], [0, 0, 0, 1]])
"""Axes of which x grows to the front, y upwards, z to the right, all a little oblique."""
FOLDS = ("split.method=kfold", "split.folds=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("like_others")


@pytest.fixture(scope="module")
def runs(folder):
    """Two folds that nobody has trained; the masks of the first are neither empty nor full."""
    names = [sam_experiment(folder, "run.name=sam", *FOLDS, f"split.fold={k}") for k in range(2)]
    return [make_run(experiment, seed) for seed, experiment in enumerate(names)]


@pytest.fixture(scope="module")
def scan(runs):
    """A case as it is on disk, and the probabilities of the first run."""
    case = discover(read_run(runs[0]).experiment.data)[0].load()
    return case, load_run(runs[0]).probabilities(case)


@pytest.mark.all_only  # test_predict_files has it of a U-Net, test_sam_run predicts raw cases
def test_labels_lie_on_the_own_grid_of_a_scan(runs, scan, tmp_path):
    case, _ = scan
    voxels = np.rint(case.image[..., 0]).astype(np.int16)
    write_nifti(tmp_path / "scans" / "a" / "a_flair.nii.gz", to_file_axes(voxels), OBLIQUE)
    predict(Arguments((runs[0],), (tmp_path / "scans",), ()), tmp_path / "out", overlays=0)
    label = nib.load(tmp_path / "out" / "a.nii.gz")
    assert label.shape == to_file_axes(voxels).shape
    np.testing.assert_array_equal(label.affine, OBLIQUE)


@pytest.mark.all_only  # test_sam_run asks the exported graph, test_loaded_version the server
def test_the_served_model_gives_the_probabilities_of_the_run(runs, scan, tmp_path):
    case, expected = scan
    version, _ = export_runs([runs[0]], tmp_path / "brain", largest_volume=20_000)
    served = LoadedVersion("brain", 1, version, Limits())
    asked = {"spacing": np.ones(3, np.float32), "probabilities": np.asarray(True)}
    asked["volume"] = case.image.astype(np.float32)
    served.check("segment", asked)
    found = served.run("segment", asked)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.all_only  # test_gelu_is_exact has the one operation that needs our help
def test_an_onnx_file_gives_the_probabilities_of_the_run(runs, scan, tmp_path):
    pytest.importorskip("onnxruntime")
    (path, _), contents = export_onnx([runs[0]], tmp_path / "brain.onnx")
    assert contents["check"]["largest_difference"] < 1e-3 and contents["dynamic_size"]
    case, expected = scan
    found, _ = stranger().predict(path, case.image)  # by numpy and onnxruntime alone
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.all_only  # test_trial and test_resume have it of a U-Net, test_embeddings the batches
def test_a_trial_that_is_stopped_and_resumed_is_a_run_that_is_not(folder, tmp_path, capsys):
    """On embeddings, which are computed once: the state holds the decoder's optimiser alone."""
    quick = "training={epochs: 2, batch_size: 2, steps_per_epoch: 1, gradient_accumulation: 1}"
    given = (f"run.root={tmp_path}", quick, "pipeline.validation_patches_per_volume=1")
    stopped, whole = (sam_experiment(folder, *given, f"run.name={n}") for n in ("trial", "whole"))
    job = TrialJob(tmp_path / "job", stopped, 1, objective="val_dice", direction="max")
    job.write()
    outcome = run_job(job.folder)
    assert (outcome.status, outcome.epochs) == ("completed", 1)
    assert outcome.score == float(read_history(tmp_path / "trial" / "history.csv")[0]["val_dice"])
    run_experiment(stopped, resume=True, evaluated=False)
    run_experiment(whole, evaluated=False)
    assert capsys.readouterr().err.count("slices once") == 1
    ends = [tmp_path / name for name in ("trial", "whole")]
    assert len({str(read_history(end / "history.csv")) for end in ends}) == 1
    networks = [keras.saving.load_model(end / "checkpoints" / "last.keras") for end in ends]
    for a, b in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.all_only  # test_evaluate_runs and test_case_files do it with a U-Net
def test_folds_are_put_together(runs, monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))
    pages = evaluate_runs([read_run(run) for run in runs], "validation")
    assert [page.parent.parent.name for page in pages[:2]] == ["sam_fold0", "sam_fold1"]
    assert pages[2].parent.name == "sam_out_of_fold"
    tables = [(page.parent / "metrics.csv").read_text().splitlines()[1:] for page in pages]
    assert sorted(tables[2]) == sorted(tables[0] + tables[1])


def test_a_page_compares_it_with_a_unet(runs, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_module, "_figures", lambda *_: iter(()))
    settings = ("model={dimensions: 2, target: binary, features: [4], bottleneck: 6}",)
    settings += ("pipeline.patch_size=[12,16]", "data.modalities=[flair]", "run.name=unet")
    settings += (f"records.root={folder / 'unet_store'}", "data.phantom.cases=6", *FOLDS)
    unet = make_run(phantom_experiment(folder, *settings))
    (unet / "summary.json").write_text('{"parameters": 1234, "trained_parameters": 1234}')
    page = compare_runs([read_run(unet), read_run(runs[0])], "validation", tmp_path)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["cases"] == 2 and list(found["runs"]) == ["unet_fold0", "sam_fold0"]
    assert [used["prompt"] for used in found["runs"].values()] == ["", "none"]
    text = page.read_text()
    assert "1,234" in text and "of another data set" in text
    for row in ("U-Net|0.87|0.79|0.89|0.86|12", "SAM, fine-tuned|0.83|0.74|0.85|0.82|89"):
        assert "".join(f"<td>{cell}</td>" for cell in row.split("|")) in text
