"""What is to be predicted is found by what it looks like, without its segmentations."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.datasets.brats_nifti import discover
from kerasseg.datasets.case import BrokenSource
from kerasseg.datasets.inputs import find_inputs
from kerasseg.errors import UserError
from tests.conftest import SHAPE, to_file_axes, write_brats, write_h5_volume, write_nifti

BRATS = DataSettings(layout="brats_nifti", root="nowhere")
PICTURES = DataSettings(layout="image_pairs", root="nowhere")
NAMES_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}


def reason(found):
    assert isinstance(found.source, BrokenSource)
    return found.source.reason


def test_a_case_or_a_folder_of_cases_by_their_names(tmp_path, phantoms):
    folder = write_brats(tmp_path, "BraTS2021_00010", phantoms[0])
    write_brats(
        tmp_path, "BraTS-GLI-00009-000", phantoms[1], pattern="{case}-{kind}.nii.gz",
        names=NAMES_2023, enhancing=3,
    )  # fmt: skip
    (folder / "BraTS2021_00010_seg.nii.gz").write_bytes(b"not looked at")
    write_nifti(folder / "brain_box.nii.gz", np.ones((3, 4, 5)))
    found = find_inputs([tmp_path], BRATS)
    assert [f.source.case_id for f in found] == ["BraTS2021_00010", "BraTS-GLI-00009-000"]
    assert [f.label_ids for f in found] == [None, {0: 0, 1: 1, 2: 2, 3: 3}]
    (one,) = find_inputs([folder], BRATS)
    case = one.source.load()
    assert case.label is None and case.modalities == ("flair", "t1", "t1ce", "t2")
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
    files = sorted(folder.glob("*t[12]*.nii.gz"))
    assert len(find_inputs(files[:2], BRATS.model_copy(update={"modalities": ("t1",)}))) == 1


def test_the_same_as_the_training_reads(brats_root, phantoms):
    data = DataSettings(layout="brats_nifti", root=brats_root, modalities=("t2", "flair"))
    for trained, found in zip(discover(data), find_inputs([brats_root], data), strict=True):
        first, second = trained.load(), found.source.load()
        assert first.case_id == second.case_id and first.modalities == second.modalities
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.affine, second.affine)


def test_names_without_a_case_in_front(tmp_path, phantoms):
    for channel, name in enumerate(("FLAIR", "T1", "T1Gd", "T2")):
        write_nifti(tmp_path / "Miller" / f"{name}.nii", to_file_axes(phantoms[0][0][..., channel]))
    (found,) = find_inputs([tmp_path], BRATS)
    assert found.source.case_id == "Miller"
    np.testing.assert_allclose(found.source.load().image, phantoms[0][0], rtol=1e-6)


def test_a_lacking_modality_names_both_lists(tmp_path, phantoms):
    folder = write_brats(tmp_path, "a", phantoms[0])
    (folder / "a_t2.nii.gz").unlink()
    (found,) = find_inputs([tmp_path], BRATS)
    assert "a has flair, t1, t1ce, but the run needs flair, t1, t1ce, t2: add t2" in reason(found)
    write_nifti(folder / "a-t1n.nii.gz", np.ones((3, 4, 5)))
    (found,) = find_inputs([tmp_path], BRATS.model_copy(update={"modalities": ("t1",)}))
    assert "t1 too: keep one" in reason(found)


def stacked(phantom):
    return np.stack([to_file_axes(phantom[0][..., c]) for c in range(4)], axis=-1)


def test_stacked_files_in_the_order_of_the_run_or_of_dataset_json(tmp_path, phantoms):
    write_nifti(tmp_path / "imagesTs" / "x_001.nii.gz", stacked(phantoms[0]))
    write_nifti(tmp_path / "labelsTs" / "x_001.nii.gz", np.ones((3, 4, 5)))
    (found,) = find_inputs([tmp_path], BRATS)
    np.testing.assert_allclose(found.source.load().image, phantoms[0][0], rtol=1e-6)
    two = BRATS.model_copy(update={"modalities": ("t2", "t1")})
    (found,) = find_inputs([tmp_path], two)
    assert "has 4 channel(s), but the run needs 2, t2, t1 in this order" in reason(found)
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (found,) = find_inputs([tmp_path / "imagesTs"], two)
    np.testing.assert_allclose(found.source.load().image, phantoms[0][0][..., [3, 1]], rtol=1e-6)
    assert found.label_ids == {0: 0, 2: 1, 1: 2, 3: 3}
    description["labels"] = {"0": "background", "1": "who knows"}  # labels are not needed
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (found,) = find_inputs([tmp_path / "imagesTs"], two)
    assert found.label_ids is None and not isinstance(found.source, BrokenSource)
    (found,) = find_inputs([tmp_path], BRATS.model_copy(update={"modalities": ("dwi",)}))
    assert "has flair, t1, t1ce, t2, but the run needs dwi" in reason(found)


def test_numbered_files(tmp_path, phantoms):
    for channel in range(4):
        array = to_file_axes(phantoms[0][0][..., channel])
        write_nifti(tmp_path / f"x_1_{channel:04d}.nii.gz", array)
    (found,) = find_inputs([tmp_path], BRATS)
    assert found.source.case_id == "x_1"
    np.testing.assert_allclose(found.source.load().image, phantoms[0][0], rtol=1e-6)
    write_nifti(tmp_path / "x_1_0000.nii", array)
    (found,) = find_inputs([tmp_path], BRATS)
    assert "x_1_0000.nii.gz: is the same channel as" in reason(found)
    (tmp_path / "x_1_0000.nii").unlink()
    (tmp_path / "x_1_0002.nii.gz").unlink()
    (found,) = find_inputs([tmp_path], BRATS)
    assert "x_1 has 3 channel(s), but the run needs 4" in reason(found)


def test_unnamed_files(tmp_path):
    write_nifti(tmp_path / "scan.nii.gz", np.ones((3, 4, 5)))
    (found,) = find_inputs([tmp_path], BRATS)
    assert "nothing says which modality it is, and the run needs flair, t1" in reason(found)
    (found,) = find_inputs([tmp_path], BRATS.model_copy(update={"modalities": ("flair",)}))
    assert found.source.load().image.shape == (5, 4, 3, 1)
    (tmp_path / "scan.nii.gz").write_bytes(b"no scan")
    (found,) = find_inputs([tmp_path], BRATS)
    assert "scan.nii.gz: cannot be read as NIfTI" in reason(found)


def test_the_patterns_of_the_run_also_for_a_single_case(tmp_path, phantoms):
    data = DataSettings(
        layout="nifti",
        root="nowhere",
        files={"flair": "scans/{case}/*_a.nii.gz", "t1": "scans/{case}/*_b.nii.gz"},
    )
    for case in ("p1", "p2"):
        for channel, name in enumerate("ab"):
            array = to_file_axes(phantoms[0][0][..., channel])
            write_nifti(tmp_path / "scans" / case / f"x_{name}.nii.gz", array)
    ids = [f.source.case_id for f in find_inputs([tmp_path], data)]
    assert ids == ["p1", "p2"]
    (found,) = find_inputs([tmp_path / "scans" / "p2"], data)
    assert found.source.case_id == "p2"
    np.testing.assert_allclose(found.source.load().image, phantoms[0][0][..., :2], rtol=1e-6)
    (tmp_path / "scans" / "p2" / "x_b.nii.gz").unlink()
    (found,) = find_inputs([tmp_path / "scans" / "p2"], data)
    assert "p2 has flair, but the run needs flair, t1: add t1 (scans/{case}/*_b" in reason(found)


def test_h5_slices_without_masks(tmp_path, phantoms):
    write_h5_volume(tmp_path, 7, phantoms[0])
    data = BRATS.model_copy(update={"h5_slices": SHAPE[0]})
    (found,) = find_inputs([tmp_path], data)
    case = found.source.load()
    assert case.case_id == "volume_7" and case.label is None and case.image.shape[:3] == SHAPE
    (found,) = find_inputs([tmp_path], BRATS)
    assert "lacks slice(s) 18-154" in reason(found)
    (found,) = find_inputs([tmp_path], data.model_copy(update={"modalities": ("dwi",)}))
    assert "the slices hold flair, t1, t1ce, t2" in reason(found)


def write_slices(folder, count, first=1):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(first, first + count):
        pixels = random.integers(0, 255, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{folder.name}_{index}.tif")
        Image.fromarray(pixels[..., 0]).save(folder / f"{folder.name}_{index}_mask.tif")


def test_lgg_slices_without_masks(tmp_path):
    write_slices(tmp_path / "TCGA_DU_1234_19990101", 11)
    (tmp_path / "TCGA_DU_1234_19990101" / "TCGA_DU_1234_19990101_3_mask.tif").unlink()
    data = DataSettings(layout="lgg", root="nowhere", modalities=("flair", "t1"))
    (found,) = find_inputs([tmp_path], data)
    case = found.source.load()
    assert case.image.shape == (11, 9, 8, 2) and case.label is None and not found.picture
    last = Image.open(tmp_path / "TCGA_DU_1234_19990101" / "TCGA_DU_1234_19990101_11.tif")
    np.testing.assert_array_equal(case.image[10], np.asarray(last)[..., [1, 0]])
    with pytest.raises(UserError, match=r"t1, flair, t1ce, .* the run needs flair, t1, t1ce, t2"):
        find_inputs([tmp_path], BRATS)


def test_pictures(tmp_path):
    for name in ("images/a.png", "images/more/b.jpg", "masks/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(72, dtype=np.uint8).reshape(9, 8)).save(path)
    found = find_inputs([tmp_path], PICTURES)
    assert [f.source.case_id for f in found] == ["a", "more_b"] and all(f.picture for f in found)
    assert found[0].source.load().image.shape == (1, 9, 8, 1)
    (one,) = find_inputs([tmp_path / "images" / "a.png"], PICTURES)
    assert one.source.case_id == "a"
    with pytest.raises(UserError, match=r"is a picture, .* grey.* but the run needs flair, t1"):
        find_inputs([tmp_path], BRATS)
    write_slices(tmp_path / "x", 2)
    assert [f.source.case_id for f in find_inputs([tmp_path / "x"], PICTURES)] == ["x_1", "x_2"]


def test_a_layout_that_is_asked_for(tmp_path, phantoms):
    write_brats(tmp_path, "a", phantoms[0])
    with pytest.raises(UserError, match=r"no brats_h5 in .*which holds 5 other file"):
        find_inputs([tmp_path], BRATS, "brats_h5")
    assert "nothing says which modality" in reason(find_inputs([tmp_path], BRATS, "msd")[0])
    assert len(find_inputs([tmp_path], BRATS, "brats_nifti")) == 1
    with pytest.raises(UserError, match="layout is 'dicom', expected one of brats_nifti"):
        find_inputs([tmp_path], BRATS, "dicom")


def test_nothing_there(tmp_path, phantoms):
    with pytest.raises(UserError, match=r"no case in .*which holds no file: expected NIfTI"):
        find_inputs([tmp_path], BRATS)
    with pytest.raises(UserError, match=r"INPUT: .*nowhere does not exist"):
        find_inputs([tmp_path / "nowhere"], BRATS)
    write_brats(tmp_path / "predictions", "a", phantoms[0])
    with pytest.raises(UserError, match="holds no file"):
        find_inputs([tmp_path], BRATS, leave_out=tmp_path / "predictions")


def test_two_cases_of_one_name(tmp_path, phantoms):
    for folder in ("first", "second"):
        write_brats(tmp_path / folder, "a", phantoms[0])
    (found,) = find_inputs([tmp_path], BRATS)
    assert "a is the name of 2 cases" in reason(found)


def test_masks_of_the_brain_are_no_scans(tmp_path, phantoms):
    data = BRATS.model_copy(update={"modalities": ("flair",)})
    values = to_file_axes(phantoms[0][0][..., 0])
    for name in ("a", "a_brain_mask", "a_brainmask", "a_bet_mask", "a-BrainExtractionMask"):
        write_nifti(tmp_path / f"{name}.nii.gz", values)
    assert [f.source.case_id for f in find_inputs([tmp_path], data)] == ["a"]


def test_a_stack_has_as_many_channels_as_dataset_json_names(tmp_path):
    """One more channel in front would give every network the wrong ones."""
    names = {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels}))
    write_nifti(tmp_path / "a.nii.gz", np.ones((3, 4, 5, 5)))
    assert "has 5 channel(s), but" in reason(find_inputs([tmp_path], BRATS)[0])


def test_a_picture_of_any_name_stays_a_picture(tmp_path):
    path = tmp_path / os.fsdecode(b"M\xfcller.png")
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(path)
    (found,) = find_inputs([tmp_path], PICTURES)
    assert found.picture and found.source.case_id == "M%FCller"
    assert (found.source.load().image == 7).all()
