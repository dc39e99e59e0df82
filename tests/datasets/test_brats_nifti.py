import os

import nibabel as nib
import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.checks import check_case
from kerasseg.datasets.discovery import discover, patient_of, unclear_patients
from kerasseg.datasets.inputs import find_inputs
from kerasseg.errors import UserError, printable
from kerasseg.records.manifest import describe, unchanged
from tests.conftest import LPS, to_file_axes, write_brats, write_nifti

NEW_NAMES = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}


def settings(root, **more) -> DataSettings:
    return DataSettings(layout="brats_nifti", root=root, **more)


@pytest.mark.parametrize(
    ("case_id", "pattern", "names", "enhancing"),
    [
        ("BraTS20_Training_001", "{case}_{kind}.nii", {}, 4),
        ("BraTS2021_00006", "{case}_{kind}.nii.gz", {}, 4),
        ("BraTS-GLI-00000-000", "{case}-{kind}.nii.gz", NEW_NAMES, 3),
        ("odd", "{case}_{kind}.NII.GZ", {"t1": "T1", "flair": "Flair", "seg": "SEG"}, 4),
    ],
)
def test_every_release_gives_the_same_case(tmp_path, phantoms, case_id, pattern, names, enhancing):
    write_brats(
        tmp_path / "deep", case_id, phantoms[0], pattern=pattern, names=names, enhancing=enhancing
    )
    (source,) = discover(settings(tmp_path))
    case = source.load()
    image, label = phantoms[0]
    assert case.case_id == case_id and case.modalities == anatomy.MODALITIES
    np.testing.assert_array_equal(case.image, np.rint(image))
    np.testing.assert_array_equal(case.label, label)
    assert case.spacing == (1, 1, 1) and len(source.files) == 5


def test_time_points_belong_to_one_patient(tmp_path, phantoms):
    for point in ("000", "001"):
        write_brats(
            tmp_path,
            f"BraTS-GLI-00042-{point}",
            phantoms[0],
            pattern="{case}-{kind}.nii.gz",
            names=NEW_NAMES,
            enhancing=3,
        )
    assert {s.patient_id for s in discover(settings(tmp_path))} == {"BraTS-GLI-00042"}


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS-MEN-RT-0012-1", "BraTS-MEN-RT-0012"),
        ("UPENN-GBM-00017_21", "UPENN-GBM-00017"),
        ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429"),
        ("sub-07_ses-postop_run-1", "sub-07"),
        ("Patient-007_week-044-1", "Patient-007"),
        ("PatientID_0003_Timepoint_2", "PatientID_0003"),
        ("100012_time1", "100012"),
        ("glioma12-baseline", "glioma12"),
        ("TCGA-02-0006_1996.08.23", "TCGA-02-0006"),
        ("TCGA_CS_4941_19960909", "TCGA_CS_4941"),
        ("ACRIN-Brain-001_01-23-1985", "ACRIN-Brain-001"),
        ("p01_20200101T1200", "p01"),
        ("OAS30001_MR_d0129", "OAS30001_MR"),
        ("002_S_0295_m06", "002_S_0295"),
        ("ReMIND-001_Intraop", "ReMIND-001"),
        ("p01_scan_2", "p01"),
        ("p01_post-op_2", "p01"),
        *[(name, name) for name in ("BraTS2021_00006", "BraTS20_Training_001", "BRATS_485")],
        *[(name, name) for name in ("hospital_v2_001", "case_3", "week_1", "phantom_0007")],
        *[(name, name) for name in ("site1_V001", "IXI002-Guys-0828", "BraTS19_2013_10_1")],
    ],
)
def test_a_name_tells_the_patient_of_a_time_point(case_id, patient):
    assert patient_of(case_id) == patient


@pytest.mark.parametrize(
    ("case_ids", "words"),
    [
        (["p01_a", "p01_b", "p02_a"], "p01_a and p01_b look like scans of one patient"),
        (["p01_a", "p01_b", "p02", "p03"], "p01_a and p01_b look like scans of one patient"),
        (["p01", "p01_2", "p02"], "p01 and p01_2 look like scans of one patient"),
        (["BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-00006-100"], None),
        (["BraTS2021_00006", "BraTS2021_00007", "case_1", "case_2"], None),
        (["BraTS19_CBICA_AAB_1", "BraTS19_CBICA_ABE_1", "BraTS20_Training_001"], None),
        (["TCGA-02-0006", "TCGA-02-0009", "TCGA-06-0119"], None),
    ],
)
def test_names_that_may_be_time_points_and_are_not_understood_are_said(case_ids, words):
    said = unclear_patients({case_id: patient_of(case_id) for case_id in case_ids})
    assert said is None if words is None else words in said


def test_time_points_are_known_in_every_layout_of_scans(tmp_path, phantoms):
    for point in (1, 2):
        write_brats(tmp_path, f"p07_visit{point}", phantoms[0])
    data = DataSettings(layout="nifti", root=tmp_path, files={"t1": "{case}/*_t1.nii.gz"})
    assert {s.patient_id for s in discover(data)} == {"p07"}
    own = data.model_copy(update={"patient_pattern": "^(.+)$"})
    assert {s.patient_id for s in discover(own)} == {"p07_visit1", "p07_visit2"}


def test_float_labels_and_no_segmentation(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    ids = np.where(phantoms[0][1] == 3, 4, phantoms[0][1]).astype(np.float32)
    write_nifti(folder / "case_seg.nii.gz", to_file_axes(ids))
    (source,) = discover(settings(tmp_path))
    np.testing.assert_array_equal(source.load().label, phantoms[0][1])
    (folder / "case_seg.nii.gz").unlink()
    (source,) = discover(settings(tmp_path))
    assert source.load().label is None


def test_the_misnamed_segmentation_of_brats_2020(tmp_path, phantoms):
    folder = write_brats(tmp_path, "BraTS20_Training_355", phantoms[0], pattern="{case}_{kind}.nii")
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    (source,) = discover(settings(tmp_path))
    case = source.load()
    np.testing.assert_array_equal(case.label, phantoms[0][1])
    (note,) = case.notes
    assert note.startswith("W39_1998.09.19_Segm.nii is taken for its segmentation")


def test_a_subset_of_modalities_in_another_order(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    (folder / "case_t1.nii.gz").unlink()
    (source,) = discover(settings(tmp_path, modalities=("t2", "flair")))
    np.testing.assert_array_equal(source.load().image, np.rint(phantoms[0][0][..., [3, 0]]))


def test_hidden_files_of_macos_and_capitals_in_the_config(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    (folder / "._case_flair.nii.gz").write_bytes(b"resource fork")
    (tmp_path / "__MACOSX" / "case").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "case" / "case_t1.nii.gz").write_bytes(b"")
    (source,) = discover(settings(tmp_path, modalities=("T2F", "T1ce")))
    assert source.load().modalities == ("flair", "t1ce")


def test_a_voxel_size_that_drifts_across_the_volume_is_noticed(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    values = to_file_axes(phantoms[0][0][..., 3])
    write_nifti(folder / "case_t2.nii.gz", values, LPS * [1.005, 1, 1, 1])
    (source,) = discover(settings(tmp_path))
    with pytest.raises(UserError, match="moves a corner of the volume by"):
        source.load()


def test_refused_folders(tmp_path, phantoms):
    root = tmp_path / "data"
    with pytest.raises(UserError, match="does not exist"):
        discover(settings(root))
    root.mkdir()
    with pytest.raises(UserError, match="no brats_nifti case"):
        discover(settings(root))
    folder = write_brats(root, "case", phantoms[0])
    (folder / "case_t2.nii.gz").unlink()
    (source,) = discover(settings(root))
    with pytest.raises(UserError, match=r"case case has no t2 file.*data.modalities"):
        source.load()


def test_two_cases_of_one_id_and_two_files_of_one_modality(tmp_path, phantoms):
    for place in ("first", "second"):
        write_brats(tmp_path / place, "case", phantoms[0])
    write_brats(tmp_path, "other", phantoms[1])
    twice, other = discover(settings(tmp_path))
    with pytest.raises(UserError, match=r"case is the name of 2 cases, in .*first.*second"):
        twice.load()
    folder = tmp_path / "other"
    (folder / "other_T1GD.nii").write_bytes(b"")
    twice, other = discover(settings(tmp_path))
    with pytest.raises(UserError, match=r"other_t1ce.nii.gz.*is t1ce too|T1GD.*is t1ce too"):
        other.load()
    *_, other = discover(settings(tmp_path, modalities=("flair",)))
    assert other.load().label.any(), "a doubled modality that nobody asked for does no harm"


def test_linked_folders_are_followed_and_loops_refused(tmp_path, phantoms):
    write_brats(tmp_path / "elsewhere", "case", phantoms[0])
    root = tmp_path / "data"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert [s.case_id for s in discover(settings(root))] == ["case"]
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    with pytest.raises(UserError, match=r"loop: is a symbolic link to .*data.*remove the link"):
        discover(settings(root))


def test_spaces_and_letters_of_other_alphabets(tmp_path, phantoms):
    name = "Müller пациент 患者 7"
    write_brats(tmp_path / "Студия", name, phantoms[0])
    (source,) = discover(settings(tmp_path))
    assert source.load().case_id == name


def test_refused_grids(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    path = folder / "case_t2.nii.gz"
    values = to_file_axes(phantoms[0][0][..., 3])
    shifted = LPS.copy()
    shifted[0, 3] += 1
    (source,) = discover(settings(tmp_path))
    write_nifti(path, values, shifted)
    with pytest.raises(UserError, match=r"t2.nii.gz: its affine differs .* by 1 mm"):
        source.load()
    write_nifti(path, values[:-1])
    with pytest.raises(UserError, match=r"t2.nii.gz: shape \(21, 24, 18\).*\(22, 24, 18\)"):
        source.load()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinite"),
        (0, "zero in every voxel"),
        (7, "7 in every voxel"),
        ("mask", "is 3 wherever it is not 0: the file holds a mask"),
    ],
)
def test_refused_voxels(tmp_path, phantoms, value, words):
    folder = write_brats(tmp_path, "case", phantoms[0])
    values = to_file_axes(phantoms[0][0][..., 3]).astype(np.float32)
    if value == "mask":
        values[values != 0] = 3
    elif np.isfinite(value):
        values[:] = value
    else:
        values[3, 4, 5] = value
    write_nifti(folder / "case_t2.nii.gz", values)
    (source,) = discover(settings(tmp_path))
    with pytest.raises(UserError, match=f"case: t2.*{words}"):
        check_case(source.load())


@pytest.mark.parametrize("spoilt", ["nothing", "a corner", "a mark", "padding", "cut"])
def test_air_that_is_not_zero_is_made_zero_and_said(tmp_path, phantoms, spoilt):
    """A scan z-scored as a whole: air is one negative number, and some of the brain is negative.
    What happened to a corner of it afterwards does not matter."""
    kept = np.s_[:9, :, :11] if spoilt == "cut" else np.s_[:]  # the field of view ends in the brain
    image, label = phantoms[0]
    folder = write_brats(tmp_path, "case", (image[kept], label[kept]))
    raw = np.rint(image[..., 3])
    scored = ((raw - raw.mean()) / raw.std())[kept].astype(np.float32)
    air, expected = scored[0, 0, 0], (raw / raw.std())[kept]
    if spoilt == "a corner":
        scored[-1, -1, -1] = air + 5
        expected[-1, -1, -1] = 5
    elif spoilt == "a mark":  # burnt into one corner, and another one damaged
        scored[:2, :2, :4], scored[-1, -1, -1] = air + 5, air - 1
        expected[:2, :2, :4], expected[-1, -1, -1] = 5, -1
    elif spoilt == "padding":  # turned after it was scored: exact 0 came in at the corners
        scored[:2, :2], scored[-2:, -2:] = 0, 0
    write_nifti(folder / "case_t2.nii.gz", to_file_axes(scored))
    (source,) = discover(settings(tmp_path))
    case = check_case(source.load())
    np.testing.assert_array_equal(case.image[..., 3] == 0, expected == 0)
    np.testing.assert_allclose(case.image[..., 3], expected, rtol=1e-4, atol=1e-4)
    assert len(case.notes) == 1 and case.notes[0].startswith("air is -")


def test_noise_of_a_scan_that_was_not_stripped_is_no_air(tmp_path, phantoms):
    """Of whole numbers eight corners may well be equal; that is no air."""
    folder = write_brats(tmp_path, "case", phantoms[0])
    noise = np.random.default_rng(0).integers(1, 6, phantoms[0][1].shape).astype(np.int16)
    noise[:: len(noise) - 1, :: noise.shape[1] - 1, :: noise.shape[2] - 1] = 3
    values = noise + np.rint(phantoms[0][0][..., 3]).astype(np.int16)
    write_nifti(folder / "case_t2.nii.gz", to_file_axes(values))
    case = discover(settings(tmp_path))[0].load()
    np.testing.assert_array_equal(case.image[..., 3], values)
    (note,) = case.notes
    assert "the whole volume counts as brain" in note
    assert discover(settings(tmp_path, skull_stripped=False))[0].load().notes == []


def test_negative_intensities_around_zero_air_stay(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    raw = np.rint(phantoms[0][0][..., 3])
    centred = np.where(raw != 0, raw - raw.max() / 2, 0).astype(np.int16)
    write_nifti(folder / "case_t2.nii.gz", to_file_axes(centred))
    (source,) = discover(settings(tmp_path))
    case = check_case(source.load())
    np.testing.assert_array_equal(case.image[..., 3], centred)
    assert (case.image[..., 3] < 0).any() and not case.notes


@pytest.mark.parametrize("codes", ["RAS", "LAI", "SPL", "PIR"])
def test_files_of_a_case_may_have_their_axes_in_different_orders(tmp_path, phantoms, codes):
    """Programs store a segmentation in their own order; its header says where a voxel lies."""
    folder = write_brats(tmp_path, "case", phantoms[0])
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes)
    )
    for kind in ("seg", "t2"):
        path = folder / f"case_{kind}.nii.gz"
        nib.save(nib.load(path).as_reoriented(turn), path)
    case = discover(settings(tmp_path))[0].load()
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
    np.testing.assert_array_equal(case.label, phantoms[0][1])


def test_an_archiver_s_folder_counts_as_the_file(tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0], pattern="{case}_{kind}.nii")
    for path in list(folder.iterdir()):
        path.rename(tmp_path / "aside")
        path.mkdir()
        (path / "__MACOSX").mkdir()
        (tmp_path / "aside").rename(path / f"00000057_brain_{path.name[5:]}")
    (source,) = discover(settings(tmp_path))
    case = source.load()
    assert case.case_id == "case" and all(path.is_file() for path in source.files)
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
    np.testing.assert_array_equal(case.label, phantoms[0][1])
    (found,) = find_inputs([tmp_path], settings(tmp_path))
    np.testing.assert_array_equal(found.source.load().image, case.image)


@pytest.mark.parametrize("name", [b"M\xfcller", b"a\nb", b"\x1b[31mred", "x\x85y\u202e".encode()])
def test_names_of_any_bytes_become_ids_that_can_be_stored(tmp_path, phantoms, name):
    written = write_brats(tmp_path, "case", phantoms[0])
    folder = tmp_path / os.fsdecode(name)
    written.rename(folder)
    for path in list(folder.iterdir()):
        path.rename(folder / f"{folder.name}{path.name[4:]}")
    (source,) = discover(settings(tmp_path))
    assert source.case_id == source.patient_id == printable(folder.name)
    assert source.case_id.isprintable() and "%" in source.case_id
    case = source.load()
    np.testing.assert_array_equal(case.label, phantoms[0][1])
    described = describe(source.files, tmp_path)
    assert all(file.name.isprintable() for file in described)
    assert unchanged(source.files, tmp_path, described)
    assert find_inputs([tmp_path], settings(tmp_path))[0].source.case_id == source.case_id
    (folder / f"{folder.name}_t1.nii.gz").write_bytes(b"")
    with pytest.raises(UserError) as error:
        source.load()
    message = str(error.value)
    assert message.replace("\n", "").isprintable() and source.case_id in printable(message)


def test_4_is_no_enhancing_tumour_under_the_names_of_2023_and_later(tmp_path, phantoms):
    """In BraTS 2024 it is the resection cavity, which was taken for enhancing tumour."""
    write_brats(
        tmp_path, "BraTS-GLI-00001-100", phantoms[0], pattern="{case}-{kind}.nii.gz",
        names=NEW_NAMES, enhancing=4,
    )  # fmt: skip
    files = {m: f"{{case}}/*-{name}.nii.gz" for m, name in NEW_NAMES.items()}
    patterns = {"layout": "nifti", "files": files, "segmentation": "{case}/*-seg.nii.gz"}
    for data in (settings(tmp_path), DataSettings(root=tmp_path, **patterns)):
        with pytest.raises(UserError, match=r"seg.nii.gz: label value\(s\) \[4\].*resection"):
            discover(data)[0].load()
    other_names = tmp_path / "other" / "BraTS-GLI-00002-100"
    write_brats(other_names, "x", phantoms[0], enhancing=4)
    (other_names / "x").rename(other_names / "nifti")
    for path in (other_names / "nifti").iterdir():
        path.rename(other_names / path.name)
    with pytest.raises(UserError, match=r"label value\(s\) \[4\].*resection"):
        discover(settings(other_names))[0].load()
    cavity = {0: 0, 1: 1, 2: 2, 3: 3, 4: 0}
    label = discover(settings(tmp_path, label_map=cavity))[0].load().label
    np.testing.assert_array_equal(label, np.where(phantoms[0][1] == anatomy.ET, 0, phantoms[0][1]))


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("case_brain_segmentation", False),
        ("brain_segmentation", False),
        ("case_wm_segmentation", False),
        ("case_segmentation", True),
        ("case_brain_tumor_segmentation", True),
    ],
)
def test_only_a_segmentation_of_the_tumour_by_its_name_is_taken(tmp_path, phantoms, name, taken):
    folder = write_brats(tmp_path, "case", phantoms[0])
    (folder / "case_seg.nii.gz").rename(folder / f"{name}.nii.gz")
    case = discover(settings(tmp_path))[0].load()
    assert (case.label is not None) == taken
    assert any(name in note for note in case.notes) == taken, "what was taken is named"
