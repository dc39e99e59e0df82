"""Anybody's NIfTI files: matched, refused, scored."""

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.datasets.labels import CONVENTIONS, label_ids
from kerasseg.errors import UserError
from kerasseg.evaluation import report
from kerasseg.evaluation.evaluate_files import (
    evaluate_files,
    find_pairs,
    parse_labels,
    read_pair,
    read_scan,
    scan_file,
)
from kerasseg.metrics.case_metrics import case_metrics
from tests.conftest import LPS, write_nifti

SHAPE = (9, 12, 7)
THICK = LPS * [2, 1, 3, 1]


def labels(seed, ids=(0, 1, 2, 4)):
    """(x, y, z) with the ids in blocks, so that there are surfaces."""
    small = np.random.default_rng(seed).choice(ids, (3, 4, 4))
    return np.kron(small, np.ones((3, 3, 2), np.uint8))[:, :, : SHAPE[2]].astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    for index in range(3):
        write_nifti(tmp_path / "truth" / f"case{index}-seg.nii.gz", labels(index), THICK)
        write_nifti(tmp_path / "pred" / "sub" / f"case{index}.nii", labels(index + 9), THICK)
    return tmp_path


@pytest.mark.usefixtures("figures_not_rendered")
def test_files_of_one_name_are_scored_in_millimetres(folders):
    page = evaluate_files(folders / "pred", folders / "truth", folders / "out")
    with (folders / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == ["case0", "case1", "case2"]
    truth, prediction = labels(1).transpose(2, 1, 0), labels(10).transpose(2, 1, 0)
    for name, ids in {"NCR": [1], "ET": [4], "WT": [1, 2, 4], "TC": [1, 4]}.items():
        wanted = case_metrics(np.isin(truth, ids), np.isin(prediction, ids), (3.0, 1.0, 2.0))
        for metric, value in wanted.values.items():
            assert float(rows[1][f"{metric}_{name}"]) == pytest.approx(value, abs=1e-5)
    summary = json.loads((folders / "out" / "summary.json").read_text())
    dice = [float(row["dice_WT"]) for row in rows]
    assert summary["metrics"]["files"]["WT"]["dice"]["mean"] == pytest.approx(
        np.mean(dice), abs=1e-5
    )
    assert summary["seconds_per_volume"]["files"] is None
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:image/png|#)', text), "nothing outside the page"
    figures = {path.stem for path in (folders / "out" / "figures").iterdir()}
    assert len(figures) >= 15 and len(re.findall(r"<img src=.data:", text)) == len(figures)
    assert {"worst_planes", "median_planes", "best_planes", "bland_altman"} <= figures
    assert "calibration_curve" not in figures, "there are no probabilities"
    confusion = list(csv.reader((folders / "out" / "confusion_matrix.csv").open()))
    assert sum(int(n) for row in confusion[1:] for n in row[1:]) == 3 * np.prod(SHAPE)
    every = [
        (t, p) for i in range(3) for t, p in zip(labels(i).flat, labels(i + 9).flat, strict=True)
    ]
    assert int(confusion[2][4]) == every.count((1, 4)), "true NCR, predicted ET"


@pytest.mark.usefixtures("figures_not_rendered")
def test_tumour_of_any_kind_and_one_case(tmp_path):
    write_nifti(tmp_path / "truth" / "a.nii.gz", labels(0, (0, 7)))
    write_nifti(tmp_path / "pred" / "a.nii.gz", labels(0, (0, 7)) * 0)
    evaluate_files(tmp_path / "pred", tmp_path / "truth", tmp_path / "out", "7")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["files"]["tumour"]["dice"] == {
        "mean": 0.0,
        "low": None,
        "high": None,
        "cases": 1,
    }
    assert summary["decided_by_empty_rule"]["files"]["hd95_tumour"] == 1


def test_pictures_are_scored_like_volumes_of_one_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))
    random, masks = np.random.default_rng(3), {}
    for name in ("a", "b"):
        masks[name] = truth, found = random.random((2, 11, 9)) > 0.6
        for folder, mask, white in (("truth", truth, 255), ("pred", found, 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = mask.astype(np.uint8) * white
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}_mask.png")
    page = evaluate_files(tmp_path / "pred", tmp_path / "truth", tmp_path / "out")
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    for name, (truth, found) in masks.items():
        dice = 2 * (truth & found).sum() / (truth.sum() + found.sum())
        assert float(rows[name]["dice_tumour"]) == pytest.approx(dice, abs=1e-6)
    text = page.read_text()
    assert "it counts as 1 mm" in text and "0 background, any other tumour" in text
    (pair, _) = find_pairs(tmp_path / "pred", tmp_path / "truth")
    with pytest.raises(UserError, match=r"a_mask\.png: contains label 1; expected are 0, 255"):
        read_pair(pair, *parse_labels("255"))
    Image.fromarray(np.zeros((11, 8), np.uint8)).save(tmp_path / "pred" / "a_mask.png")
    with pytest.raises(UserError, match=r"has 8 x 11 x 1 voxels"):
        read_pair(pair, *parse_labels("255"))
    scan = np.arange(99, dtype=np.uint8).reshape(11, 9)
    Image.fromarray(scan).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_scan(tmp_path, "a", (1, 11, 9))[0], scan)


def test_labels_mean_the_same_everywhere():
    assert parse_labels("brats") == parse_labels("1,2,4")
    assert parse_labels("msd") == ({0: 0, 2: 1, 1: 2, 3: 3}, "labels")
    assert label_ids("1,2,4", DataSettings(), "labels", None) == CONVENTIONS["brats"]
    assert label_ids("255", DataSettings(), "binary", None) == {0: 0, 1: 255}
    with pytest.raises(UserError, match=r"one id is for tumour .*model.target=regions"):
        label_ids("255", DataSettings(), "regions", None)
    for text in ("brats20", "1,2", "0,1,2", "1,1,2", "-1"):
        with pytest.raises(UserError, match=f"--labels {text}: expected brats, brats23, msd, the"):
            parse_labels(text)


def test_scans_of_the_same_names_are_drawn_below(folders):
    random = np.random.default_rng(0)
    for name in ("case1_t1.nii.gz", "case1_flair.nii.gz", "case1-seg.nii.gz", "case10.nii.gz"):
        write_nifti(folders / "scans" / name, random.random(SHAPE).astype(np.float32), THICK)
    assert scan_file(folders / "scans", "case1").name == "case1_flair.nii.gz"
    assert scan_file(folders / "scans", "case2") is None
    scan = read_scan(folders / "scans", "case1", SHAPE[::-1])
    assert scan.shape == SHAPE[::-1] and scan.dtype == np.float32
    with pytest.raises(UserError, match=r"case10.nii.gz: has \(7, 12, 9\) voxels"):
        read_scan(folders / "scans", "case10", (7, 12, 8))


def test_time_points_of_a_patient_are_one_patient(folders):
    for index in range(3):
        for side, end in (("truth", "-seg.nii.gz"), ("pred/sub", ".nii")):
            old = folders / side / f"case{index}{end}"
            old.rename(old.with_name(f"BraTS-GLI-0000{index // 2}-10{index}{end}"))
    pairs = find_pairs(folders / "pred", folders / "truth")
    patients = [read_pair(pair, {0: 0, 1: 1, 2: 2, 4: 3}, "labels").patient_id for pair in pairs]
    assert patients == ["BraTS-GLI-00000", "BraTS-GLI-00000", "BraTS-GLI-00001"]


def test_the_ids_of_a_scheme():
    assert parse_labels("1, 2,4") == ({0: 0, 1: 1, 2: 2, 4: 3}, "labels")
    assert parse_labels("3,1,2")[0] == {0: 0, 3: 1, 1: 2, 2: 3}
    assert parse_labels("255") == ({0: 0, 255: 1}, "binary")
    assert parse_labels(None)[0][4] == 3
    assert parse_labels("1,2,3+4")[0] == {0: 0, 1: 1, 2: 2, 3: 3, 4: 3}
    assert parse_labels("0+4,1,2,3")[0] == {0: 0, 4: 0, 1: 1, 2: 2, 3: 3}
    assert parse_labels("0+4,1+2") == ({0: 0, 4: 0, 1: 1, 2: 1}, "binary")
    for wrong in ("1,2", "1,1,2", "0,1,2", "a,b,c", "", "1,2,3,4", "1,2,3+", "1,2,3+2", "0+1,1"):
        with pytest.raises(UserError, match="--labels"):
            parse_labels(wrong)


@pytest.mark.parametrize(
    ("name", "values", "affine", "words"),
    [
        ("shape", labels(0)[:, :, :-1], THICK, r"has 9 x 12 x 6 voxels .* has 9 x 12 x 7"),
        ("spacing", labels(0), LPS, r"voxels of 1 x 1 x 1 mm .* are 2 x 1 x 3 mm"),
        ("place", labels(0), THICK + np.eye(4, k=3) * 5, r"lies elsewhere .* at \(15.00, 20"),
        ("turned", labels(0), THICK * [-1, 1, 1, 1], "turns its axes"),
        ("labels", labels(0) + 5, THICK, r"contains label 5, 6, 7, 9; expected are 0, 1, 2, 3, 4"),
        ("both", labels(0, (0, 3, 4, 1)), THICK, "labels 3 and 4 both occur"),
        ("fraction", labels(0) * 0.4, THICK, "must hold whole numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(folders, name, values, affine, words):
    write_nifti(folders / "pred" / "sub" / "case0.nii", values, affine)
    label_map, target = parse_labels(None)
    pair = find_pairs(folders / "pred", folders / "truth")[0]
    with pytest.raises(UserError, match=words) as error:
        read_pair(pair, label_map, target, {})
    assert "case0.nii" in str(error.value), name


def test_voxels_in_centimetres_are_refused(tmp_path):
    """Distances would be ten times too short, and volumes a thousand times too small."""
    for side in ("pred", "truth"):
        write_nifti(tmp_path / side / "a.nii", labels(0), LPS * [0.1, 0.1, 0.1, 1])
    (pair,) = find_pairs(tmp_path / "pred", tmp_path / "truth")
    with pytest.raises(UserError, match=r"a.nii: voxels of 0.1x0.1x0.1 mm .* impossible"):
        read_pair(pair, *parse_labels(None))


def test_4_under_the_names_of_2023_and_later_is_asked_about(tmp_path):
    """It is a resection cavity from 2024 on, and files without a 3 do not contradict it."""
    for side in ("pred", "truth"):
        write_nifti(tmp_path / side / "BraTS-GLI-00009-100.nii.gz", labels(0), THICK)
    (pair,) = find_pairs(tmp_path / "pred", tmp_path / "truth")
    with pytest.raises(UserError, match=r"BraTS-GLI-00009-100.nii.gz: holds label 4.*0\+4,1,2,3"):
        read_pair(pair, *parse_labels(None), {})
    assert set(np.unique(read_pair(pair, *parse_labels("0+4,1,2,3")).truth)) == {0, 1, 2}


def test_scans_beside_the_segmentations_of_a_data_set_are_passed_over(folders):
    wanted = find_pairs(folders / "pred", folders / "truth")
    for name in ("case0-t1c.nii.gz", "case1_FLAIR.nii"):
        write_nifti(folders / "truth" / name, labels(0))
    assert find_pairs(folders / "pred", folders / "truth") == wanted
    write_nifti(folders / "truth" / "case9-t1c.nii.gz", labels(0))
    with pytest.raises(UserError, match=r"no partner .*case9-t1c"):
        find_pairs(folders / "pred", folders / "truth")


def test_partners_that_are_missing_or_double_and_folders_that_are_empty(folders):
    pred, truth = folders / "pred", folders / "truth"
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match=r"--truth .*empty: holds no NIfTI file"):
        find_pairs(pred, folders / "empty")
    with pytest.raises(UserError, match=r"--pred .*none: there is no such folder"):
        find_pairs(folders / "none", truth)
    write_nifti(pred / "other.nii.gz", labels(0))
    with pytest.raises(UserError, match=r"1 file\(s\) have no partner .*truth: .*other.nii.gz"):
        find_pairs(pred, truth)
    (pred / "other.nii.gz").rename(pred / "case0_pred.nii.gz")
    with pytest.raises(UserError, match="both of the case case0"):
        find_pairs(pred, truth)
    (pred / "case0_pred.nii.gz").unlink()
    # What `kerasseg predict` writes beside its segmentations.
    (pred / "sub" / "predictions.json").touch()
    (pred / "sub" / "overlays").mkdir()
    (pred / "sub" / "overlays" / "case0.png").touch()
    write_nifti(pred / "sub" / "case0_probability_WT.nii.gz", labels(0))
    assert len(find_pairs(pred, truth)) == 3
    (truth / "case1-seg.nii.gz").unlink()
    with pytest.raises(UserError, match=r"no partner .* in .*truth: .*case1.nii"):
        find_pairs(pred, truth)


def test_a_name_may_have_two_forms_in_unicode(tmp_path):
    """macOS stores letters and their marks apart."""
    for side, name in (("pred", "Mu\u0308ller.nii"), ("truth", "M\u00fcller.nii")):
        write_nifti(tmp_path / side / name, labels(0))
    assert len(find_pairs(tmp_path / "pred", tmp_path / "truth")) == 1


def test_3_and_4_are_judged_over_all_files(folders):
    """A truth with 4 and a prediction with 3 had Dice 1, and 4 may be a resection cavity."""
    write_nifti(folders / "pred" / "sub" / "case1.nii", labels(1, (0, 1, 2, 3)), THICK)
    with pytest.raises(UserError, match=r"case1.nii, .*case1-seg.nii.gz: labels 3 and 4 both"):
        evaluate_files(folders / "pred", folders / "truth", folders / "out")
    assert not (folders / "out").exists()
    pair = find_pairs(folders / "pred", folders / "truth")[1]
    found = read_pair(pair, *parse_labels("1,2,3+4"))
    assert found.truth.max() == 3 and found.masks[..., -1].any()


def test_axes_in_another_order_are_no_other_place(folders):
    path = folders / "pred" / "sub" / "case0.nii"
    pair = find_pairs(folders / "pred", folders / "truth")[0]
    before = read_pair(pair, *parse_labels(None))
    turn = [[2, -1], [0, 1], [1, -1]]
    nib.save(nib.load(path).as_reoriented(np.array(turn)), folders / "turned.nii")
    (folders / "turned.nii").replace(path)
    after = read_pair(pair, *parse_labels(None))
    np.testing.assert_array_equal(after.masks, before.masks)
    np.testing.assert_array_equal(after.truth, before.truth)
