"""Finished runs, whose networks need not have learnt anything to be scored."""

import csv
import json
import re

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.evaluation import report
from kerasseg.evaluation.compare_runs import COMPARED, compare_runs, describe_comparison
from kerasseg.evaluation.evaluate_runs import (
    evaluate_ensemble,
    evaluate_run,
    evaluate_runs,
)
from kerasseg.inference.predictor import Predictor, build_predictor
from kerasseg.metrics.case_metrics import case_metrics
from kerasseg.records.store import open_store
from kerasseg.run import read_run
from tests import run_folders
from tests.conftest import phantom_experiment

pytestmark = pytest.mark.usefixtures("networks_loaded_once")


def make_run(root, *overrides):
    """A run folder as training leaves it, but for the training."""
    blocks = ("model.encoder_blocks=1", "model.decoder_blocks=1")
    base = ("split.test=0.25", "metrics.resamples=100", *blocks)
    return run_folders.make_run(phantom_experiment(root, *base, *overrides))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(root):
    return make_run(root)


def rows_of(path):
    with path.open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_run_gets_tables_and_one_page(run):
    (page,) = evaluate_runs([read_run(run)], "test")
    folder = run / "evaluation_test"
    assert page == folder / "report.html"
    ids = json.loads((run / "split.json").read_text())["test"]
    rows = rows_of(folder / "metrics.csv")
    assert list(rows) == ids and len(ids) == 2
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seconds_per_volume"]["test"] > 0 and summary["peak_memory_gib"] > 0.1
    assert set(summary["calibration_error"]["test"]) == {"NCR", "ED", "ET"}
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:image/png|#)', text)
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert {"calibration_curve", "roc_curve", "inference_time", "worst_slices"} <= figures
    assert len(figures) >= 20
    for words in ("tiny: test cases", "parameters", summary["facts"]["Store"], ids[0]):
        assert words in text
    slices = rows_of(folder / "slicewise_dice.csv")
    assert set(slices) == set(ids), "apart from the Dice of volumes"


def test_other_settings_have_a_folder_of_their_own_and_the_page_names_them(run, monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))
    overrides = [
        "evaluation.flips=[width]",
        "metrics.tolerance=2",
        "postprocessing.keep_largest=[ED]",
    ]
    (page,) = evaluate_runs([read_run(run, overrides)], "test")
    assert page.parent == run / "evaluation_test_flips_width_tolerance_2_keep_largest_ED"
    facts = json.loads((page.parent / "summary.json").read_text())["facts"]
    assert facts["Test-time augmentation"] == "mirrored along width"
    assert facts["Post-processing"] == "keep largest: ED"
    assert facts["Surface Dice"] == "share of both surfaces within 2 mm of the other"
    assert facts["HD95"].startswith("the larger of the two directed 95th percentiles")
    assert "BraTS 2023, GLI" in facts["Lesion-wise scores"] and "bootstrap" in facts["Intervals"]
    text = page.read_text()
    assert "'evaluation.flips=[width]'" in text.replace("&#39;", "'"), "the command makes it again"
    assert all(str(value).replace("'", "&#39;") in text for value in facts.values())
    finished = read_run(run, overrides[:1])
    case_id = finished.case_ids("test")[0]
    image = finished.open_store().load(case_id).case.image
    predictor = build_predictor(finished.experiment, finished.load_network())
    mirrored = predictor.probabilities(image[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(predictor.probabilities(image), mirrored, atol=1e-5)


def test_a_run_with_and_without_another_setting(root, run):
    runs = [read_run(run), read_run(run, ["evaluation.threshold=0.3", "metrics.tolerance=9"])]
    page = compare_runs(runs, "test", root / "with")
    found = json.loads((page.parent / "comparison.json").read_text())
    other = "tiny, threshold=0.3, tolerance=9"
    assert list(found["means"]) == ["tiny", other]
    assert found["differences"][other]["WT"]["dice"]["mean"] != 0
    assert "'evaluation.threshold=0.3'" in found["command"] or "threshold=0.3" in found["command"]
    text = page.read_text()
    assert "share of both surfaces within 1 mm" in text, "those of the first"
    assert all(used["seconds_per_slice"] > 0 for used in found["runs"].values())
    assert "ms per slice" in text and "of another data set" not in text
    assert all(metric in found["means"]["tiny"]["WT"] for metric in COMPARED)
    lines = describe_comparison(found)
    assert lines[0] == "Dice of 2 test case(s)" and lines[3].startswith(f"  {other} minus tiny: ")


def test_metrics_are_those_of_the_whole_scan(run):
    """The store holds a box: the specificity must not depend on it."""
    finished = read_run(run)
    results, _ = evaluate_run(finished, "validation")
    case_id = results.scores[0].case_id
    stored = finished.open_store().load(case_id)
    truth, masks = results.pairs[case_id].unpack()
    assert truth.shape == tuple(stored.full_shape) and masks.shape[:3] == truth.shape
    assert (truth > 0).sum() == (stored.case.label > 0).sum()
    wanted = case_metrics(truth == 2, masks[..., 1], stored.case.spacing).values
    assert results.scores[0].classes["ED"].values == wanted
    voxels = (stored.case.image != 0).any(axis=-1) | (stored.case.label > 0)
    counts = results.probabilities["ED"]
    assert counts.positives.sum() + counts.negatives.sum() == voxels.sum()
    assert counts.positives.sum() == (stored.case.label == 2).sum()


def test_folds_are_put_together(root, monkeypatch, capsys):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))
    folders = [
        make_run(root, "run.name=folds", "split.method=kfold", "split.folds=3", f"split.fold={k}")
        for k in range(2)
    ]
    runs = [read_run(folder) for folder in folders]
    pages = evaluate_runs(runs, "validation")
    assert [page.parent.parent.name for page in pages[:2]] == ["folds_fold0", "folds_fold1"]
    whole = rows_of(pages[2].parent / "metrics.csv")
    assert pages[2].parent.name == "folds_out_of_fold"
    parts = [rows_of(page.parent / "metrics.csv") for page in pages[:2]]
    assert whole == parts[0] | parts[1] and len(whole) == len(parts[0]) + len(parts[1])
    with pytest.raises(UserError, match="no validation case in common"):
        compare_runs(runs, "validation", root / "nothing")
    confusion = [
        np.loadtxt(
            p.parent / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 5)
        )
        for p in pages
    ]
    assert (confusion[2] == confusion[0] + confusion[1]).all()
    capsys.readouterr()
    assert len(evaluate_runs([runs[0], runs[0]], "validation")) == 2
    assert "no page in common: their settings differ, or they share" in capsys.readouterr().out


def test_runs_of_two_targets_are_compared_in_what_they_share(root, run):
    other = make_run(root, "run.name=regions", "model.target=regions", "loss=[{dice: 1.0}]")
    (other / "history.csv").write_text("epoch,loss,val_loss,val_dice\n1,0.9,0.8,0.2\n")
    page = compare_runs([read_run(run), read_run(other)], "test", root / "compared")
    assert (page.parent / "figures" / "training_curves.png").is_file()
    found = json.loads((page.parent / "comparison.json").read_text())
    assert set(found["means"]["tiny"]) == {"ET", "WT", "TC"} and found["cases"] == 2
    means = [found["means"][name]["WT"]["dice"]["mean"] for name in ("tiny", "regions")]
    difference = found["differences"]["regions"]["WT"]["dice"]
    assert difference["mean"] == pytest.approx(means[1] - means[0], abs=1e-5)
    assert difference["p"] is None or difference["p"] >= 0.5, "two cases prove nothing"
    text = page.read_text()
    assert text.count("data:image/png") == 6 and "regions &minus; tiny" in text
    with (page.parent / "comparison.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if (r["class"], r["metric"]) == ("TC", "hd95")]
    assert [row["run"] for row in rows] == ["tiny", "regions"] and not rows[0]["p"]
    with pytest.raises(UserError, match="two or more different"):
        compare_runs([read_run(run)] * 2, "test", root / "x")


def test_an_ensemble_is_scored_as_one_model(root, run, monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))
    flat = make_run(
        root,
        "run.name=flat",
        "pipeline.patch_size=[16,16]",
        "model.dimensions=2",
        "augment.preset=none",
        "split.test=0.25",
    )
    runs = [read_run(run), read_run(flat)]
    page = evaluate_ensemble(runs, "test", "mean", root / "both")
    (store,) = {str(read_run(r).open_store().root) for r in (run, flat)}
    assert store in page.read_text()
    case_id = json.loads((run / "split.json").read_text())["test"][0]
    stored = open_store(read_run(run).experiment).load(case_id)
    both = [evaluate_predictor(r).probabilities(stored.case.image) for r in (run, flat)]
    edema, truth = np.mean(both, axis=0)[..., 1] >= 0.5, stored.case.label == 2
    dice = 2 * (edema & truth).sum() / (edema.sum() + truth.sum())
    assert dice > 0
    found = float(rows_of(page.parent / "metrics.csv")[case_id]["dice_ED"])
    assert found == pytest.approx(dice, abs=1e-6)

    voted = evaluate_ensemble(runs, "test", "vote", root / "vote")
    assert "shares of votes" in voted.read_text()


def evaluate_predictor(folder):
    finished = read_run(folder)
    return Predictor(
        finished.load_network(),
        finished.experiment.pipeline,
        finished.experiment.evaluation,
        target="subregions",
    )


def test_an_ensemble_of_runs_that_do_not_go_together_is_refused(root, run):
    other = make_run(
        root, "run.name=three", "data.modalities=[t1,t2,flair]", f"records.root={root / 'three'}"
    )
    with pytest.raises(UserError, match="which has other cases, modalities, grid or intensities"):
        evaluate_ensemble([read_run(run), read_run(other)], "test", "mean", root / "no")
    with pytest.raises(UserError, match="two or more different"):
        evaluate_ensemble([read_run(run)], "test", "mean", root / "no")
    folds = [
        make_run(root, "run.name=f", "split.method=kfold", "split.folds=3", f"split.fold={k}")
        for k in range(2)
    ]
    with pytest.raises(UserError, match="every case was seen by a network in its training"):
        evaluate_ensemble([read_run(fold) for fold in folds], "validation", "mean", root / "no")
    assert not (root / "no").exists()
