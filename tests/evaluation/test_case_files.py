"""`kerasseg evaluate --save-labels` writes what was scored, and what `kerasseg predict` writes."""

import csv
import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from kerasseg.config.evaluation import MetricsSection
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.evaluation import report
from kerasseg.evaluation.evaluate_files import evaluate_files
from kerasseg.evaluation.evaluate_runs import evaluate_ensemble, evaluate_runs
from kerasseg.prediction.predict import Arguments, predict
from kerasseg.prediction.predict_files import OutputOptions
from kerasseg.run import read_run
from tests import run_folders
from tests.conftest import TINY, write_brats

SETTINGS = MetricsSection(resamples=100)
OBLIQUE = np.array([[-0.9, 0.1, 0, 10], [-0.1, -0.9, 0, 20], [0, 0, 1.5, -30], [0, 0, 0, 1]])
BOTH = ("labels", "probabilities")


def make_run(root, name, *overrides, seed=0):
    """A run folder as training leaves it, but for the training; sure of what it says."""
    base = (f"records.root={root / 'store'}", f"run.root={root / 'runs'}", f"run.name={name}")
    small = ("data.root=" + str(root / "scans"), "records.workers=1", "pipeline.patch_size=[8,16]")
    flat = ("model.dimensions=2", "augment.preset=none", "evaluation.overlap=0.25")
    quick = ("metrics.resamples=100", "model.encoder_blocks=1", "model.decoder_blocks=1")
    experiment = load_experiment(None, [*TINY, *base, *small, *flat, *quick, *overrides])
    return run_folders.make_run(experiment, seed)


pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr(report, "draw_figures", lambda *_: iter(()))


@pytest.fixture(scope="module")
def root(tmp_path_factory, phantoms):
    """Four BraTS cases, one of them on an oblique grid."""
    root = tmp_path_factory.mktemp("brats")
    for index in range(3):
        write_brats(root / "scans", f"BraTS20_00{index}", phantoms[index])
    write_brats(root / "scans", "BraTS20_003", phantoms[3], affine=OBLIQUE)
    return root


@pytest.fixture(scope="module")
def folds(root):
    kfold = ("data.layout=brats_nifti", "model.target=labels", "split.method=kfold")
    kfold = (*kfold, "split.folds=2", "split.test=0")
    return [make_run(root, "oof", *kfold, f"split.fold={k}", seed=k) for k in range(2)]


@pytest.fixture(scope="module")
def pages(folds):
    """The pages of both folds and of all cases, with labels beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_figures", lambda *_: iter(()))
        return evaluate_runs(_read(folds), "validation", ["labels"])


def same_files(one: Path, other: Path, names, atol=0.0) -> None:
    for name in names:
        a, b = nib.load(one / name), nib.load(other / name)
        assert a.get_data_dtype() == b.get_data_dtype() and a.shape == b.shape
        np.testing.assert_array_equal(a.affine, b.affine)
        np.testing.assert_array_equal(a.get_qform(), b.get_qform())
        np.testing.assert_allclose(np.asarray(a.dataobj), np.asarray(b.dataobj), rtol=0, atol=atol)


def _read(folders):
    return [read_run(folder) for folder in folders]


def rows_of(path):
    with path.open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_case_has_one_out_of_fold_label(root, folds, pages, tmp_path):
    whole = pages[2].parent
    assert whole == folds[0].parent / "oof_out_of_fold"
    cases = [f"BraTS20_00{index}" for index in range(4)]
    assert names_in(whole / "labels") == [f"{case}.nii.gz" for case in cases]
    assert not any(path.is_symlink() for path in (whole / "labels").iterdir())
    parts = [names_in(page.parent / "labels") for page in pages[:2]]
    assert sorted(parts[0] + parts[1]) == names_in(whole / "labels")
    assert len(parts[0]) == len(parts[1]) == 2
    assert "--split validation --save-labels" in pages[2].read_text()

    (tmp_path / "truth").mkdir()
    for case in cases:
        truth = (root / "scans" / case / f"{case}_seg.nii.gz").read_bytes()
        (tmp_path / "truth" / f"{case}_seg.nii.gz").write_bytes(truth)
    page = evaluate_files(whole / "labels", tmp_path / "truth", tmp_path / "out", "1,2,4", SETTINGS)
    scored, again = (rows_of(p.parent / "metrics.csv") for p in (pages[2], page))
    assert scored.keys() == again.keys() == set(cases)
    values = []
    for case in cases:
        for name in ("NCR", "ED", "ET", "WT", "TC"):
            values.append(float(scored[case][f"dice_{name}"]))
            assert values[-1] == pytest.approx(float(again[case][f"dice_{name}"]), abs=1e-6)
    assert 0.02 < np.mean(values) < 0.98 and len(set(values)) > 10

    ids = set()
    for folder, names in zip(folds, parts, strict=True):
        held = [root / "scans" / name.removesuffix(".nii.gz") for name in names]
        out = tmp_path / folder.name
        predict(Arguments((folder,), tuple(held), ()), out, overlays=0)
        same_files(whole / "labels", out, names)
        for name in names:
            ids |= set(np.unique(np.asarray(nib.load(whole / "labels" / name).dataobj)))
    assert ids == {0, 1, 2, 4}


def test_labels_of_an_earlier_evaluation(folds, pages):
    """They stay only where they are those of the tables beside them."""
    page = pages[0]
    labels = page.parent / "labels"
    stranger, note = labels / "of_another_split.nii.gz", labels / "note.txt"
    stranger.write_bytes(b"")
    note.write_text("mine")
    before = {p.name: p.stat().st_ino for p in labels.iterdir()}
    evaluate_runs(_read(folds[:1]), "validation")
    text = page.read_text()
    assert "labels/ are of an earlier evaluation" in text and "--save-labels writes" in text
    assert before == {p.name: p.stat().st_ino for p in labels.iterdir()}
    evaluate_runs(_read(folds[:1]), "validation", ["labels"])
    assert not stranger.exists() and note.read_text() == "mine"
    assert "earlier evaluation" not in page.read_text()


def test_a_resampled_store_and_probabilities(root, tmp_path):
    """Label maps lie on the scan's grid, where the store has another; regions and a clean-up."""
    run = make_run(
        root,
        "thick",
        "data.layout=brats_nifti",
        "data.spacing=[2,1.25,1.5]",
        f"records.root={tmp_path / 'store'}",
        "model.target=regions",
        "split.test=0.25",
        "postprocessing.minimum_volume={WT: 30}",
    )
    (page,) = evaluate_runs(_read([run]), "test", BOTH)
    folder, out = page.parent, tmp_path / "out"
    (case,) = json.loads((run / "split.json").read_text())["test"]
    maps = [f"{case}_probability_{name}.nii.gz" for name in ("ET", "TC", "WT")]
    assert names_in(folder / "labels") == [f"{case}.nii.gz"]
    assert names_in(folder / "probabilities") == maps
    options = OutputOptions(probabilities=True)
    scans = (root / "scans" / case,)
    predict(Arguments((run,), scans, ()), out, overlays=0, options=options)
    same_files(folder / "labels", out, [f"{case}.nii.gz"])
    same_files(folder / "probabilities", out, maps, atol=1e-5)
    label, scan = nib.load(folder / "labels" / f"{case}.nii.gz"), nib.load(next(scans[0].iterdir()))
    assert label.shape == (22, 24, 18)
    for key in ("sform_code", "qform_code", "srow_x"):
        np.testing.assert_array_equal(label.header[key], scan.header[key])


@pytest.mark.parametrize("combine", ["mean", pytest.param("vote", marks=pytest.mark.all_only)])
def test_an_ensemble(root, tmp_path, combine):
    settings = ("data.layout=brats_nifti", "model.target=labels", "split.test=0.25")
    runs = [make_run(root, f"e{seed}", *settings, seed=seed) for seed in range(2)]
    out, own = tmp_path / combine, tmp_path / f"own_{combine}"
    evaluate_ensemble(_read(runs), "test", combine, out, BOTH)
    names = names_in(out / "labels")
    maps = names_in(out / "probabilities")
    assert len(names) == 1 and len(maps) == 4
    scan, options = (
        root / "scans" / names[0].removesuffix(".nii.gz"),
        OutputOptions(probabilities=True),
    )
    arguments = Arguments(tuple(runs), (scan,), ())
    predict(arguments, own, combine=combine, overlays=0, options=options)
    same_files(out / "labels", own, names)
    same_files(out / "probabilities", own, maps, atol=1e-5)


def test_ids_of_brats_2023(tmp_path, phantoms):
    names = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
    new = {"pattern": "{case}-{kind}.nii.gz", "names": names, "enhancing": 3}
    for index in range(3):
        write_brats(tmp_path / "scans", f"BraTS-GLI-0000{index}-000", phantoms[index], **new)
    run = make_run(tmp_path, "new", "data.layout=brats_nifti", "model.target=labels")
    (page,) = evaluate_runs(_read([run]), "validation", ["labels"])
    (path,) = (page.parent / "labels").iterdir()
    assert set(np.unique(np.asarray(nib.load(path).dataobj))) == {0, 1, 2, 3}


def test_pictures_come_out_as_pictures(tmp_path):
    random = np.random.default_rng(1)
    for index in range(3):
        pixels = random.integers(1, 255, (33, 21), np.uint8)
        for kind, values in (("images", pixels), ("masks", np.where(pixels > 128, 255, 0))):
            folder = tmp_path / "scans" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(folder / f"p{index}.png")
    settings = ("data.layout=image_pairs", "model.target=binary", "data.size=[16,20]")
    run = make_run(tmp_path, "pictures", *settings)
    (page,) = evaluate_runs(_read([run]), "validation", BOTH)
    (name,) = names_in(page.parent / "labels")
    out = tmp_path / "out"
    scan = tmp_path / "scans" / "images" / name
    predict(Arguments((run,), (scan,), ()), out, overlays=0)
    found, expected = (np.asarray(Image.open(f / name)) for f in (page.parent / "labels", out))
    assert found.shape == (33, 21) and set(np.unique(found)) <= {0, 255} and found.any()
    np.testing.assert_array_equal(found, expected)
    (maps,) = names_in(page.parent / "probabilities")
    assert maps == f"{name.removesuffix('.png')}_probability_tumour.tif"


def test_a_patient_of_lgg_comes_out_as_a_volume(tmp_path):
    random = np.random.default_rng(2)
    for patient in ("TCGA_AA_0001", "TCGA_AA_0002", "TCGA_AA_0003"):
        folder = tmp_path / "scans" / f"{patient}_19960101"
        folder.mkdir(parents=True)
        for number in range(1, 6):
            pixels = random.integers(1, 255, (24, 20, 3), np.uint8)
            mask = np.where(pixels[..., 1] > 128, 255, 0).astype(np.uint8)
            name = f"{folder.name}_{number}"
            Image.fromarray(pixels).save(folder / f"{name}.tif")
            Image.fromarray(mask).save(folder / f"{name}_mask.tif")
    run = make_run(tmp_path, "lgg", "data.layout=lgg", "model.target=binary")
    (page,) = evaluate_runs(_read([run]), "validation", ["labels"])
    (name,) = names_in(page.parent / "labels")
    scan = tmp_path / "scans" / name.removesuffix(".nii.gz")
    predict(Arguments((run,), (scan,), ()), tmp_path / "out", overlays=0)
    same_files(page.parent / "labels", tmp_path / "out", [name])
    label = nib.load(page.parent / "labels" / name)
    assert label.shape == (20, 24, 5) and set(np.unique(np.asarray(label.dataobj))) == {0, 1}


def test_a_full_disk_is_said_and_leaves_whole_files(folds, pages, monkeypatch):
    labels = pages[0].parent / "labels"
    before = {path.name: path.read_bytes() for path in labels.iterdir()}
    write = Path.write_bytes

    def fill(path, data):
        if path.parent == labels:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(UserError, match=r"labels/.*the disk is full.*run\.root=FOLDER"):
        evaluate_runs(_read(folds[:1]), "validation", ["labels"])
    assert {path.name: path.read_bytes() for path in labels.iterdir()} == before


def test_the_folds_are_those_of_the_split(folds):
    sides = [set(read_run(folder).case_ids("validation")) for folder in folds]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 4
