"""Raw scans through run folders into files that a stranger opens with nibabel and Pillow."""

import dataclasses
import errno
import functools
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from kerasseg.datasets.nifti import NiftiSource
from kerasseg.errors import UserError
from kerasseg.prediction.model import Model, load_run
from kerasseg.prediction.predict import Arguments, predict
from kerasseg.prediction.predict_files import OutputOptions
from tests.conftest import LPS, to_file_axes, write_brats, write_h5_volume, write_nifti

RAS = np.array([[1.0, 0, 0, -9], [0, 1.125, 0, -7], [0, 0, 1.25, 5], [0, 0, 0, 1]])


@pytest.fixture(autouse=True, scope="module")
def runs_are_loaded_once():
    """Loading a run and tracing its network takes longer than a prediction."""
    once = functools.cache(load_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kerasseg.prediction.model.load_run",
            lambda folder, overrides=(): once(folder, tuple(overrides)),
        )
        yield


def run_predict(runs, scans, output, *settings, **options):
    folders = (runs,) if isinstance(runs, Path) else tuple(runs)
    return predict(Arguments(folders, (scans,), settings), output, **options)


def ids_of(masks, enhancing):
    """Regions -> ids, written out."""
    whole, core, active = np.moveaxis(masks, -1, 0)
    return np.where(active, enhancing, np.where(core, 1, np.where(whole, 2, 0)))


@pytest.fixture(scope="module")
def brats(tmp_path_factory, phantoms):
    root = tmp_path_factory.mktemp("scans")
    for index in range(2):
        write_brats(root, f"BraTS2021_0000{index}", phantoms[index])
    return root


def test_labels_lie_on_the_scans_own_grid(runs, brats, tmp_path):
    outcome = run_predict(runs["volumes"], brats, tmp_path / "out", overlays=1)
    assert outcome.written == ["BraTS2021_00000", "BraTS2021_00001"] and not outcome.failed
    assert outcome.stopped is None
    run = load_run(runs["volumes"])
    for name in outcome.written:
        scan = nib.load(brats / name / f"{name}_t1.nii.gz")
        label = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert label.shape == scan.shape and label.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(label.affine, scan.affine)
        np.testing.assert_allclose(label.get_qform(), scan.get_qform(), atol=1e-4)
        for code in ("sform_code", "qform_code"):
            assert label.header[code] == scan.header[code]
        files = [brats / name / f"{name}_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2")]
        source = NiftiSource(name, name, ("flair", "t1", "t1ce", "t2"), tuple(files), None, ())
        expected = to_file_axes(ids_of(run.masks(source.load()), 3))
        np.testing.assert_array_equal(np.asarray(label.dataobj), expected)
        assert 0 < (expected > 0).mean() < 0.9
    drawn = [path.name for path in (tmp_path / "out" / "overlays").iterdir()]
    assert drawn == ["BraTS2021_00000.png"]


def test_other_axes_and_a_stretched_grid(runs, phantoms, tmp_path):
    """The same voxels in a file whose x and y run the other way: the same label, turned."""
    stretched = RAS @ np.diag([-1, -1, 1, 1])
    write_brats(tmp_path / "lps", "a", phantoms[0], affine=stretched)
    for path in (tmp_path / "lps" / "a").iterdir():
        voxels = np.asarray(nib.load(path).dataobj)[::-1, ::-1]
        write_nifti(tmp_path / "ras" / "a" / path.name, np.ascontiguousarray(voxels), RAS)
    for name in ("lps", "ras"):
        run_predict(runs["volumes"], tmp_path / name, tmp_path / f"out_{name}", overlays=0)
    lps, ras = (nib.load(tmp_path / f"out_{name}" / "a.nii.gz") for name in ("lps", "ras"))
    np.testing.assert_array_equal(ras.affine, RAS)
    np.testing.assert_array_equal(np.asarray(lps.dataobj)[::-1, ::-1], np.asarray(ras.dataobj))
    assert np.asarray(lps.dataobj).any()


def test_a_run_of_another_voxel_size(runs, brats, tmp_path):
    settings = "data.spacing=[2,1.5,1.5]"
    run_predict(runs["volumes"], brats, tmp_path / "out", settings, overlays=0)
    label = nib.load(tmp_path / "out" / "BraTS2021_00000.nii.gz")
    np.testing.assert_array_equal(label.affine, LPS)
    scan = nib.load(brats / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz")
    assert label.shape == scan.shape and np.asarray(label.dataobj).any()


def test_ids_of_brats_2023_and_as_asked_for(runs, brats, phantoms, tmp_path):
    names = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
    pattern = "{case}-{kind}.nii.gz"
    case = write_brats(tmp_path, "BraTS-GLI-1-000", phantoms[0], pattern=pattern, names=names)
    run_predict(runs["volumes"], case, tmp_path / "new", overlays=0)
    one = brats / "BraTS2021_00000"
    for choice, enhancing in (("brats", 4), ("brats23", 3)):
        options = OutputOptions(labels=choice)
        run_predict(runs["volumes"], one, tmp_path / choice, overlays=0, options=options)
        label = np.asarray(nib.load(tmp_path / choice / "BraTS2021_00000.nii.gz").dataobj)
        assert set(np.unique(label)) == {0, 1, 2, enhancing}
    new = np.asarray(nib.load(tmp_path / "new" / "BraTS-GLI-1-000.nii.gz").dataobj)
    np.testing.assert_array_equal(new, label)  # the same phantom


def test_files_of_other_names_get_the_ids_of_the_data_of_the_training(runs, brats, tmp_path):
    """The layout that the command line names says where the scans lie, and nothing of ids."""
    files = ", ".join(f"{m}: '{{case}}/*_{m}.nii.gz'" for m in ("flair", "t1", "t1ce", "t2"))
    run_predict(
        runs["volumes"],
        brats / "BraTS2021_00000",
        tmp_path,
        "data.layout=nifti",
        "data.root=gone",
        f"data.files={{{files}}}",
        overlays=0,
    )
    (path,) = tmp_path.glob("*.nii.gz")
    assert set(np.unique(np.asarray(nib.load(path).dataobj))) == {0, 1, 2, 3}


def test_probabilities_and_uncertainty(runs, brats, tmp_path):
    options = OutputOptions(probabilities=True, uncertainty=True)
    one, out = brats / "BraTS2021_00000", tmp_path / "out"
    run_predict(runs["labels"], one, out, overlays=0, options=options)
    names = {p.name.removeprefix("BraTS2021_00000") for p in out.glob("*.nii.gz")}
    classes = ("background", "NCR", "ED", "ET")
    assert names == {".nii.gz", "_entropy.nii.gz", *(f"_probability_{c}.nii.gz" for c in classes)}
    maps = [nib.load(out / f"BraTS2021_00000_probability_{c}.nii.gz") for c in classes]
    assert all(m.get_data_dtype() == np.float32 for m in maps)
    np.testing.assert_array_equal(maps[0].affine, LPS)
    values = np.stack([np.asarray(m.dataobj) for m in maps], -1)
    np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
    label = np.asarray(nib.load(out / "BraTS2021_00000.nii.gz").dataobj)
    np.testing.assert_array_equal(values.argmax(-1), label)
    entropy = np.asarray(nib.load(out / "BraTS2021_00000_entropy.nii.gz").dataobj)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.nansum(values * np.log2(values), axis=-1)
    np.testing.assert_allclose(entropy, expected, atol=1e-4)


@pytest.mark.parametrize("combine", ["mean", pytest.param("vote", marks=pytest.mark.all_only)])
def test_several_runs(runs, brats, tmp_path, combine):
    one, out = brats / "BraTS2021_00000", tmp_path / "out"
    members = [runs["volumes"], runs["slices"], runs["other"]]
    options = OutputOptions(probabilities=True, uncertainty=True)
    run_predict(members, one, out, overlays=0, combine=combine, options=options)
    files = [one / f"{one.name}_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2")]
    case = NiftiSource("a", "a", ("flair", "t1", "t1ce", "t2"), tuple(files), None, ()).load()
    loaded = [load_run(folder) for folder in members]
    each = [run.masks(case) if combine == "vote" else run.probabilities(case) for run in loaded]
    mean, variance = np.mean(each, axis=0), np.var(each, axis=0)
    for channel, name in enumerate(("WT", "TC", "ET")):
        for what, expected in (("probability", mean), ("variance", variance)):
            found = nib.load(out / f"{one.name}_{what}_{name}.nii.gz").dataobj
            np.testing.assert_allclose(found, to_file_axes(expected[..., channel]), atol=1e-5)
    label = np.asarray(nib.load(out / f"{one.name}.nii.gz").dataobj)
    np.testing.assert_array_equal(label, to_file_axes(ids_of(mean >= 0.5, 3)))


def test_means_that_are_made_into_masks_in_two_ways(runs, brats, tmp_path):
    shutil.copytree(runs["other"], tmp_path / "other")
    config = tmp_path / "other" / "config.yaml"
    config.write_text(config.read_text().replace("threshold: 0.5", "threshold: 0.25"))
    both = [runs["volumes"], tmp_path / "other"]
    with pytest.raises(UserError, match=r"evaluation.threshold: 0.5 -> 0.25"):
        run_predict(both, brats, tmp_path / "out")
    outcome = run_predict(both, brats, tmp_path / "out", "evaluation.threshold=0.5", overlays=0)
    assert len(outcome.written) == 2


def test_a_bad_case_does_not_stop_the_others(runs, brats, phantoms, tmp_path):
    shutil.copytree(brats, tmp_path / "scans")
    image, _ = phantoms[0]
    for name, change in (("a_nan", np.nan), ("b_constant", 7)):
        bad = image.copy()
        bad[..., 1] = change
        folder = tmp_path / "scans" / name
        for channel, modality in enumerate(("flair", "t1", "t1ce", "t2")):
            array = to_file_axes(bad[..., channel].astype(np.float32))
            write_nifti(folder / f"{name}_{modality}.nii.gz", array)
    (tmp_path / "scans" / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    outcome = run_predict(runs["volumes"], tmp_path / "scans", tmp_path / "out", overlays=0)
    assert outcome.written == ["BraTS2021_00000"]
    assert "t1 has 9504 NaN" in outcome.failed["a_nan"]
    assert "t1 is 7 in every voxel" in outcome.failed["b_constant"]
    assert "has flair, t1, t1ce, but the run needs" in outcome.failed["BraTS2021_00001"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == ["BraTS2021_00000.nii.gz"]


def test_finished_cases_are_skipped(runs, brats, tmp_path):
    out = tmp_path / "out"
    one = dataclasses.replace(OutputOptions(), probabilities=True)
    run_predict(runs["volumes"], brats / "BraTS2021_00000", out, overlays=0, options=one)
    kept = (out / "BraTS2021_00000.nii.gz").stat().st_mtime_ns
    outcome = run_predict(runs["volumes"], brats, out, overlays=0)
    assert (outcome.written, outcome.skipped) == (["BraTS2021_00001"], ["BraTS2021_00000"])
    assert (out / "BraTS2021_00000.nii.gz").stat().st_mtime_ns == kept
    outcome = run_predict(runs["volumes"], brats, out, overlays=0, options=one)
    assert (outcome.written, outcome.skipped) == (["BraTS2021_00001"], ["BraTS2021_00000"])
    there = json.loads((out / "predictions.json").read_text())
    there["postprocessing"][0]["minimum_enhancing"] = 9.0  # it was tuned since
    (out / "predictions.json").write_text(json.dumps(there))
    with pytest.raises(UserError, match=r"made otherwise \(with postprocessing "):
        run_predict(runs["volumes"], brats, out, overlays=0)
    del there["postprocessing"]  # as an older kerasseg wrote it
    (out / "predictions.json").write_text(json.dumps(there))
    with pytest.raises(UserError, match=r"with settings \[\]\): "):
        run_predict(runs["volumes"], brats, out, "evaluation.overlap=0.6")
    with pytest.raises(UserError, match=r"otherwise \(with runs \[.*volumes.\]\): .*--overwrite"):
        run_predict(runs["other"], brats, out)
    anew = OutputOptions(overwrite=True)
    outcome = run_predict(runs["other"], brats, out, overlays=0, options=anew)
    assert len(outcome.written) == 2
    there = json.loads((out / "predictions.json").read_text())
    assert there["runs"] == [str(runs["other"])]
    del there["finished"]  # as an older kerasseg wrote it
    (out / "predictions.json").write_text(json.dumps(there))
    assert len(run_predict(runs["other"], brats, out, overlays=0).skipped) == 2


def test_a_stopped_overwrite_goes_on_and_no_label_of_before_passes_for_new(runs, brats, tmp_path):
    out = tmp_path / "out"
    names = [f"BraTS2021_0000{index}.nii.gz" for index in range(2)]
    run_predict(runs["other"], brats, out, overlays=0)
    old = [(out / name).read_bytes() for name in names]
    segment, cases = Model.segment, []

    def stop_at_the_second(model, case, **options):
        cases.append(case.case_id)
        if len(cases) == 2:
            raise KeyboardInterrupt
        case.notes.append("as it is")
        return segment(model, case, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "segment", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            anew = OutputOptions(overwrite=True)
            run_predict(runs["volumes"], brats, out, overlays=0, options=anew)
    assert (out / names[1]).read_bytes() == old[1]
    outcome = run_predict(runs["volumes"], brats, out, overlays=0)
    assert (outcome.written, outcome.skipped) == (cases[1:], cases[:1])
    assert all((out / name).read_bytes() != was for name, was in zip(names, old, strict=True))
    there = json.loads((out / "predictions.json").read_text())
    assert there["finished"] == names and there["notes"][cases[0]] == ["as it is"]
    anew = OutputOptions(overwrite=True)
    run_predict(runs["volumes"], brats / cases[0], out, overlays=0, options=anew)
    there = json.loads((out / "predictions.json").read_text())
    assert there["finished"] == names and cases[0] not in there["notes"]


def test_what_is_odd_about_a_scan_stands_in_the_folder(runs, phantoms, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    for channel in range(4):
        values = to_file_axes(np.rint(phantoms[0][0][..., channel]).astype(np.int16))
        write_nifti(scans / f"a_{channel:04d}.nii.gz", values)
    for _ in range(2):  # the second time it is finished
        run_predict(runs["volumes"], scans, out, overlays=0)
        ((case_id, (note,)),) = json.loads((out / "predictions.json").read_text())["notes"].items()
        assert case_id == "a"
        assert "they were taken for flair, t1, t1ce, t2, in this order" in note
    given = "data.channels={flair: 3, t1: 0, t1ce: 1, t2: 2}"
    run_predict(runs["volumes"], scans, tmp_path / "given", given, overlays=0)
    there = json.loads((tmp_path / "given" / "predictions.json").read_text())
    assert there["settings"] == [given] and there["notes"] == {}


def test_a_full_disk_leaves_finished_cases_whole(runs, brats, tmp_path, monkeypatch):
    write, out = Path.write_bytes, tmp_path / "out"

    def fill(path, data):
        if "BraTS2021_00001" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    outcome = run_predict(runs["volumes"], brats, out, overlays=0)
    assert outcome.written == ["BraTS2021_00000"]
    assert "BraTS2021_00001.nii.gz failed: the disk is full" in outcome.stopped
    assert "--output=FOLDER" in outcome.stopped
    assert {p.name for p in out.iterdir()} == {"BraTS2021_00000.nii.gz", "predictions.json"}
    nib.load(out / "BraTS2021_00000.nii.gz").get_fdata()
    monkeypatch.undo()
    assert run_predict(runs["volumes"], brats, out, overlays=0).written == ["BraTS2021_00001"]


def test_h5_slices(runs, phantoms, tmp_path):
    write_h5_volume(tmp_path / "scans", 3, phantoms[0])
    outcome = run_predict(runs["volumes"], tmp_path / "scans", tmp_path / "out", overlays=1)
    assert outcome.written == ["volume_3"]
    (note,) = outcome.notes["volume_3"]
    assert note.startswith("holds slices that were normalised one by one, but the run was trained")
    label = nib.load(tmp_path / "out" / "volume_3.nii.gz")
    assert label.shape == phantoms[0][1].shape[::-1] and nib.aff2axcodes(label.affine) == tuple(
        "LPS"
    )


def test_pictures_come_out_as_pictures(runs, tmp_path):
    random = np.random.default_rng(1)
    for name, shape in (("a", (33, 21)), ("b", (16, 20))):
        (tmp_path / "scans").mkdir(exist_ok=True)
        pixels = random.integers(1, 255, shape, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{name}.png")
    options = OutputOptions(probabilities=True)
    outcome = run_predict(
        runs["pictures"], tmp_path / "scans", tmp_path / "out", options=options, overlays=1
    )
    assert outcome.written == ["a", "b"]
    mask = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    probability = np.asarray(Image.open(tmp_path / "out" / "a_probability_tumour.tif"))
    assert mask.shape == probability.shape == (33, 21)
    assert mask.dtype == np.uint8 and probability.dtype == np.float32
    np.testing.assert_array_equal(mask, np.where(probability >= 0.5, 255, 0))
    assert 0 < (mask > 0).mean() < 1
    with pytest.raises(UserError, match=r"scans is the folder of the scans"):
        run_predict(runs["pictures"], tmp_path / "scans", tmp_path / "scans")
    before = (tmp_path / "scans" / "a.png").read_bytes()
    arguments = Arguments((runs["pictures"],), (tmp_path / "scans" / "a.png",), ())
    outcome = predict(arguments, tmp_path / "scans")
    assert "is a scan itself" in outcome.failed["a"]
    assert (tmp_path / "scans" / "a.png").read_bytes() == before
    with pytest.raises(UserError, match=r"is a picture, .*but the run needs flair, t1, t1ce, t2"):
        run_predict(runs["volumes"], tmp_path / "scans", tmp_path / "out3")


def test_a_folder_in_the_scans_folder_is_not_taken_for_scans(runs, brats, tmp_path):
    shutil.copytree(brats, tmp_path / "scans")
    for _ in range(2):
        outcome = run_predict(
            runs["volumes"], tmp_path / "scans", tmp_path / "scans" / "out", overlays=1
        )
        assert not outcome.failed
    assert len(outcome.skipped) == 2 and not outcome.written
