"""One data set with every defect: each is found in its own case, and the good cases stay good."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.data_report.verify import (
    CaseReport,
    Verification,
    compare_cases,
    inspect_case,
    report_killed,
    verify,
)
from kerasseg.datasets.case import BrokenSource
from kerasseg.datasets.checks import findings_of, to_grid
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.nifti import NiftiSource
from kerasseg.errors import UserError
from kerasseg.parallel import parallel_map
from kerasseg.prediction.prediction import array_case
from kerasseg.records.store import open_store
from tests.conftest import LPS, SHAPE, TINY, write_brats, write_h5_volume, write_nifti

GOOD = ("good0", "good1", "good2")


def experiment_of(root: Path, *overrides: str, layout: str = "brats_nifti") -> Experiment:
    base = (f"data.layout={layout}", f"data.root={root}", f"records.root={root.parent / 'store'}")
    return load_experiment(None, [*TINY, *base, "records.workers=1", *overrides])


def by_case(verification: Verification) -> dict[str, CaseReport]:
    return {case.case_id: case for case in verification.cases}


def found(report: CaseReport) -> list[tuple[str, str]]:
    return [(finding.severity, finding.check) for finding in report.findings]


def edit(path: Path, change, affine: np.ndarray | None = None) -> None:
    """Rewrite a NIfTI file with `change` of its voxels (x, y, z)."""
    image = nib.load(path)
    write_nifti(
        path, change(np.asanyarray(image.dataobj)), image.affine if affine is None else affine
    )


def with_nan(voxels):
    values = voxels.astype(np.float32)
    values[3, 4, 5] = np.nan
    return values


def moved(shift: float) -> np.ndarray:
    affine = LPS.copy()
    affine[0, 3] += shift
    return affine


DEFECTS = {
    "nan": (lambda f: edit(f / "nan_t2.nii.gz", with_nan), "finite", "t2 has 1 NaN"),
    "flat": (
        lambda f: edit(f / "flat_t1.nii.gz", lambda v: np.full_like(v, 7)),
        "constant",
        "t1 is 7 in every voxel",
    ),
    "void": (
        lambda f: edit(f / "void_t1ce.nii.gz", np.zeros_like),
        "constant",
        "t1ce is zero in every voxel",
    ),
    "shape": (
        lambda f: edit(f / "shape_t1.nii.gz", lambda v: v[:-1]),
        "unreadable",
        r"shape_t1.nii.gz: shape \(21, 24, 18\) \(x, y, z\) differs",
    ),
    "affine": (
        lambda f: edit(f / "affine_seg.nii.gz", lambda v: v, moved(3)),
        "unreadable",
        "affine_seg.nii.gz: its affine differs .* by 3 mm",
    ),
    "label": (
        lambda f: edit(f / "label_seg.nii.gz", lambda v: np.where(v == 4, 9, v).astype(np.uint8)),
        "unreadable",
        r"label_seg.nii.gz: label value\(s\) \[9\] are unknown",
    ),
    "outside": (
        lambda f: edit(f / "outside_seg.nii.gz", lambda v: np.where(v == 0, 1, 0).astype(np.uint8)),
        "outside the brain",
        "tumour voxels lie where every modality is 0",
    ),
    "incomplete": (
        lambda f: (f / "incomplete_t1ce.nii.gz").unlink(),
        "files",
        "case incomplete has no t1ce file",
    ),
    "cut": (
        lambda f: (f / "cut_flair.nii.gz").write_bytes(
            (f / "cut_flair.nii.gz").read_bytes()[:2000]
        ),
        "unreadable",
        "cut_flair.nii.gz: cannot be read as NIfTI",
    ),
    "nolink": (
        lambda f: (f / "nolink_t2.nii.gz").unlink() or (f / "nolink_t2.nii.gz").symlink_to("away"),
        "unreadable",
        "nolink_t2.nii.gz: no such file",
    ),
}


@pytest.fixture(scope="module")
def defective(tmp_path_factory: pytest.TempPathFactory, phantoms) -> Path:
    """The three good cases, one of each of `DEFECTS`, and cases that only deserve a warning."""
    root = tmp_path_factory.mktemp("verify") / "scans"
    rng = np.random.default_rng(0)

    def fresh() -> tuple[np.ndarray, np.ndarray]:
        """A scan of its own, so that nothing is the double of anything."""
        image, label = phantoms[0]
        return np.where(image > 0, image + rng.integers(1, 50, image.shape), 0), label

    for index, name in enumerate(GOOD):
        write_brats(root, name, phantoms[index])
    for name, (spoil, _, _) in DEFECTS.items():
        spoil(write_brats(root, name, fresh()))
    write_brats(root, "no_tumour", phantoms[7])
    (write_brats(root, "unsegmented", fresh()) / "unsegmented_seg.nii.gz").unlink()
    write_brats(root, "coarse", fresh(), affine=LPS @ np.diag([2, 2, 2, 1.0]))
    image, label = fresh()
    write_brats(root, "low", (image[:-2], label[:-2]))
    for name in ("twin_a", "twin_b"):
        write_brats(root, name, phantoms[3])
    for folder in ("here", "there"):
        write_brats(root / folder, "same_name", phantoms[4])
    return root


@pytest.fixture(scope="module")
def verification(defective: Path) -> Verification:
    return verify(experiment_of(defective))


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_found_in_its_case_and_nothing_else(verification, name):
    _, check, words = DEFECTS[name]
    report = by_case(verification)[name]
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert [finding.check for finding in errors] == [check]

    assert re.search(words, errors[0].message), errors[0].message
    assert report.verdict == "error"


def test_the_good_cases_stay_good_in_the_same_run(verification, phantoms):
    reports = by_case(verification)
    for index, name in enumerate(GOOD):
        report = reports[name]
        assert found(report) == [] and report.verdict == "ok"
        assert report.shape == SHAPE and report.spacing == (1, 1, 1) and report.files == 5
        labels = phantoms[index][1]
        expected = {n: int((labels == i).sum()) for n, i in (("NCR", 1), ("ED", 2), ("ET", 3))}
        assert report.voxels == expected
        assert report.bytes > 1000


def test_what_a_person_should_look_at_is_a_warning(verification):
    reports = by_case(verification)
    assert found(reports["no_tumour"]) == [("warning", "empty segmentation")]
    assert found(reports["unsegmented"]) == [("warning", "no segmentation")]
    assert reports["unsegmented"].voxels is None
    assert found(reports["coarse"]) == [("warning", "spacing")]
    assert "2x2x2 mm" in reports["coarse"].findings[0].message
    assert "data.spacing=[1,1,1]" in reports["coarse"].findings[0].message
    assert found(reports["low"]) == [("warning", "size")]
    assert "16x24x22 voxels" in reports["low"].findings[0].message
    assert {reports[name].verdict for name in ("no_tumour", "unsegmented", "low")} == {"warning"}


def test_doubles_of_voxels_and_of_names(verification):
    reports = by_case(verification)
    assert found(reports["twin_a"]) == found(reports["twin_b"]) == [("error", "duplicate")]
    assert "same voxels as twin_b" in reports["twin_a"].findings[0].message
    assert "same voxels as twin_a" in reports["twin_b"].findings[0].message
    assert found(reports["same_name"]) == [("error", "files")]
    message = reports["same_name"].findings[0].message
    assert "here" in message and "there" in message


def test_a_modality_of_another_patient_is_said(tmp_path, phantoms):
    """Its file was copied to the wrong folder, and the other modalities are the patient's own."""
    root = tmp_path / "scans"
    for index in range(3):
        write_brats(root, f"case{index}", phantoms[index])
    shutil.copy(root / "case0" / "case0_t1ce.nii.gz", root / "case2" / "case2_t1ce.nii.gz")
    reports = by_case(verify(experiment_of(root)))
    assert found(reports["case0"]) == found(reports["case1"]) == []
    assert found(reports["case2"]) == [("warning", "copied modality")]
    assert "its t1ce has the same voxels as t1ce of case0" in reports["case2"].findings[0].message


def test_a_segmentation_of_another_patient_is_said(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index in (2, 3):
        write_brats(root, f"case{index}", (phantoms[index][0], phantoms[5 - index][1]))
    verification = verify(experiment_of(root))
    assert verification.ok, "it may be a tumour that hardly shows"
    for report in verification.cases:
        assert found(report) == [("warning", "unseen")]
        assert report.findings[0].message.startswith("the tumour looks like what is around it")


@pytest.mark.parametrize("pair", [("flair", "t1"), ("flair", "t1ce")])
def test_exchanged_modalities_of_one_case_are_said(tmp_path, phantoms, pair):
    root = tmp_path / "scans"
    for index in range(6):
        write_brats(root, f"case{index}", phantoms[index])
    first, second = (root / "case3" / f"case3_{name}.nii.gz" for name in pair)
    first.rename(root / "third")
    second.rename(first)
    (root / "third").rename(second)
    reports = by_case(verify(experiment_of(root)))
    (finding,) = reports.pop("case3").findings
    assert finding.check == "exchanged modalities"
    assert " and ".join(pair) in finding.message
    assert not any(report.findings for report in reports.values())


def test_counts_and_verdict(verification):
    assert verification.counts == {"ok": 3, "warning": 4, "error": len(DEFECTS) + 3}
    assert not verification.ok and verification.findings == []


def test_processes_give_the_same_as_one(defective, verification):
    assert verify(experiment_of(defective, "records.workers=2")) == verification


def test_good_cases_alone_are_ok_and_resampling_forgives_voxel_sizes(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index, spacing in enumerate((1, 1, 2)):
        affine = LPS @ np.diag([spacing, spacing, spacing, 1.0])
        write_brats(root, f"case{index}", phantoms[index], affine=affine)
    reports = by_case(verify(experiment_of(root)))
    assert [found(r) for r in reports.values()] == [[], [], [("warning", "spacing")]]
    calm = verify(experiment_of(root, "data.spacing=[1,1,1]"))
    assert calm.ok and calm.counts == {"ok": 3, "warning": 0, "error": 0}


def test_voxel_sizes_without_a_majority_are_said_once(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index, spacing in enumerate((1, 2.5)):
        affine = LPS @ np.diag([1, 1, spacing, 1.0])
        write_brats(root, f"case{index}", phantoms[index], affine=affine)
    result = verify(experiment_of(root))
    assert result.counts["ok"] == 2 and result.ok
    (finding,) = result.findings
    assert (finding.severity, finding.check) == ("warning", "spacing")
    assert "2 voxel sizes, from 1x1x1 to 2.5x1x1 mm" in finding.message


def test_a_double_of_the_same_patient_is_a_warning_and_air_does_not_hide_it(tmp_path, phantoms):
    root = tmp_path / "scans"
    image, label = phantoms[0]
    write_brats(root, "p1_a", (image, label))
    wider = np.pad(image, [(0, 0), (2, 0), (0, 3), (0, 0)]), np.pad(label, [(0, 0), (2, 0), (0, 3)])
    write_brats(root, "p1_b", wider)
    result = verify(experiment_of(root, "data.patient_pattern=^(p\\d)"))
    assert result.ok
    for report in result.cases:
        assert ("warning", "duplicate") in found(report)
    strangers = verify(experiment_of(root))
    assert all(("error", "duplicate") in found(report) for report in strangers.cases)


def test_a_set_without_any_segmentation_is_one_to_predict(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index in range(2):
        name = f"case{index}"
        (write_brats(root, name, phantoms[index]) / f"{name}_seg.nii.gz").unlink()
    result = verify(experiment_of(root))
    assert result.ok and result.counts == {"ok": 2, "warning": 0, "error": 0}


def test_an_unexpected_exception_is_a_finding(tmp_path, phantoms, monkeypatch):
    root = tmp_path / "scans"
    for index in range(2):
        write_brats(root, f"case{index}", phantoms[index])
    load = NiftiSource.load

    def fail(source):
        if source.case_id == "case0":
            raise ZeroDivisionError("a bug of ours")
        return load(source)

    monkeypatch.setattr(NiftiSource, "load", fail)
    result = verify(experiment_of(root))
    assert [found(case) for case in result.cases] == [[("error", "crash")], []]
    assert result.cases[0].findings[0].message == "ZeroDivisionError: a bug of ours"


def test_slices_missing_doubled_and_damaged(tmp_path, phantoms):
    root = tmp_path / "h5"
    for number in range(5):
        write_h5_volume(root, number, phantoms[number])
    (root / "volume_1_slice_7.h5").unlink()
    (root / "more").mkdir()
    (root / "more" / "volume_2_slice_3.h5").write_bytes((root / "volume_2_slice_3.h5").read_bytes())
    (root / "volume_3_slice_0.h5").write_bytes(b"not HDF5")
    with h5py.File(root / "volume_4_slice_9.h5", "a") as file:
        file["image"][2, 2, 0] = np.inf
    result = verify(experiment_of(root, f"data.h5_slices={SHAPE[0]}", layout="brats_h5"))
    assert {name: found(case) for name, case in by_case(result).items()} == {
        "volume_0": [],
        "volume_1": [("error", "files")],
        "volume_2": [("error", "files")],
        "volume_3": [("error", "unreadable")],
        "volume_4": [("error", "finite")],
    }
    reports = by_case(result)
    assert "lacks slice(s) 7" in reports["volume_1"].findings[0].message
    assert "are the same slice" in reports["volume_2"].findings[0].message


def test_pictures_of_unknown_patients_may_leak(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a_1", "a_2"):
        for folder in ("images", "masks"):
            pixels = rng.integers(1, 255, (20, 24), dtype=np.uint8)
            if folder == "masks":
                pixels[:] = 0
                pixels[5:9, 5:9] = 255
            path = tmp_path / "pairs" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    overrides = (
        "model.dimensions=2",
        "model.target=binary",
        "pipeline.patch_size=[16,16]",
        "loss.0.weights=null",
    )
    result = verify(experiment_of(tmp_path / "pairs", *overrides, layout="image_pairs"))
    assert result.ok and result.counts["ok"] == 2
    assert [case.spacing for case in result.cases] == [None, None]
    assert [(f.severity, f.check) for f in result.findings] == [("warning", "patients")]
    assert "data.patient_pattern" in result.findings[0].message
    pattern = "data.patient_pattern=^(\\w)_"
    calm = verify(experiment_of(tmp_path / "pairs", *overrides, pattern, layout="image_pairs"))
    assert calm.findings == []


def test_a_patient_in_two_splits(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index in range(4):
        write_brats(root, f"p{index}_0", phantoms[index])
    experiment = experiment_of(root, "split.test=0")
    store = open_store(experiment)
    splits = store.root / "splits"
    splits.mkdir()
    (splits / "a.json").write_text(
        '{"train": ["p0_0", "p1_0"], "validation": ["p2_0"], "test": ["p3_0", "gone"]}'
    )
    (splits / "b.json").write_text('{"folds": [["p0_0", "p2_0"], ["p1_0", "p3_0"]], "test": []}')
    (splits / "c.json").write_text("[]")
    result = verify(experiment)
    assert [(f.severity, f.check) for f in result.findings] == [("error", "split")]
    (splits / "c.json").unlink()
    assert verify(experiment).ok
    # Now p0 and p1 turn out to be one patient: a.json has both in training, b.json in two folds.
    table = tmp_path / "patients.csv"
    table.write_text("case_id,patient_id\np0_0,same\np1_0,same\np2_0,x\np3_0,y\n")
    split = tmp_path / "split.csv"
    split.write_text("case_id,split\np0_0,train\np1_0,test\np2_0,val\np3_0,train\n")
    overrides = (f"data.patient_csv={table}", "split.method=file", f"split.file={split}")
    result = verify(experiment_of(root, *overrides))
    assert not result.ok and result.counts["ok"] == 4
    assert [f.check for f in result.findings] == ["patient in two splits"] * 2
    first, second = (finding.message for finding in result.findings)
    assert "split.csv: patient same stands in train and in test (p0_0, p1_0)" in first
    assert "b.json: patient same stands in fold 0 and in fold 1" in second


def test_nothing_to_verify_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        verify(experiment_of(tmp_path / "nowhere"))


def test_a_killed_process_is_a_finding_of_its_case(tmp_path, phantoms):
    """The pool loses everything under way; only the case at fault is called so."""
    root = tmp_path / "scans"
    for index in range(5):
        write_brats(root, f"case{index}", phantoms[index])
    sources = discover(experiment_of(root).data)
    sources[1] = Deadly(**vars(sources[1]))
    reports = list(parallel_map(inspect_case, sources, 2, report_killed))
    assert [case.case_id for case in reports] == [f"case{i}" for i in range(5)]
    assert [found(case) for case in reports] == [[], [("error", "crash")], [], [], []]
    assert "records.workers=1" in reports[1].findings[0].message


def test_a_file_whose_size_cannot_be_asked_for_is_a_finding_of_its_case():
    impossible = Path("x" * 300)  # as a file in a folder that may not be entered
    report = inspect_case(BrokenSource("a", "a", (impossible,), "it cannot be read"))
    assert report.bytes == 0 and report.findings[0].severity == "error"


class Deadly(NiftiSource):
    def load(self):

        os._exit(9)


def test_it_needs_no_tensorflow(python):
    code = (
        "import sys, kerasseg.data_report.verify, kerasseg.data_report.verify, "
        "kerasseg.data_report.table, kerasseg.data_report.table; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([python, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize("size", [(1, 0.001, 1), (1, 1000, 1), (0.1, 0.1, 0.1), (10, 10, 10)])
def test_voxels_that_no_head_has_are_an_error(size):
    """Headers in metres or centimetres among them."""
    image = np.zeros((20, 20, 20, 1), np.float32)
    image[2:12, 2:9, 2:12, 0] = np.arange(10)
    (error,) = [
        f for f in findings_of(array_case(image, size, ("flair",))) if f.severity == "error"
    ]
    text = "x".join(f"{each:g}" for each in size)
    assert error.check == "spacing" and f"voxels of {text} mm" in error.message
    (fine,) = findings_of(array_case(image, (6, 0.2, 0.2), ("flair",)))
    assert fine.check == "no segmentation"
    data = DataSettings(spacing=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"is 20x0\.2x20 mm .* would make 20x0\.2x20 voxels"):
        to_grid(array_case(image, (1, 0.01, 1), ("flair",)), data)
    with pytest.raises(UserError, match=r"would make 2x20x20 voxels"):
        to_grid(array_case(image, (1, 1, 1), ("flair",)), DataSettings(spacing=(10.0, 1.0, 1.0)))
    few = array_case(image[:3], (1, 1, 1), ("flair",))
    assert to_grid(few, DataSettings(spacing=(1.1, 1.0, 1.0))).image.shape[0] == 3
    report = CaseReport("a", "a", 1, 1, shape=(20, 20, 20), spacing=(1, 0.01, 1))
    compare_cases([report], data)
    assert found(report) == [("error", "spacing")], "verify finds what convert refuses"
