import numpy as np
import pytest

from kerasseg.config.data import DataSettings
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.nifti_patterns import pattern_regex
from kerasseg.errors import UserError
from tests.conftest import LPS, to_file_axes, write_nifti


def write(path, array):
    write_nifti(path, to_file_axes(array), LPS)


@pytest.mark.parametrize(
    ("pattern", "path", "case"),
    [
        ("{case}_FLAIR.nii.gz", "p_1_FLAIR.nii.gz", "p_1"),
        ("{case}/{case}_*_t1.nii", "p_1/p_1_2004_t1.nii", "p_1"),
        ("{case}/{case}_t1.nii", "p_1/p_2_t1.nii", None),
        ("scans/**/{case}/anat/t?.nii", "scans/a/b/sub 01/anat/t1.nii", "sub 01"),
        ("scans/**/{case}/anat/t?.nii", "scans/sub/anat/t1.nii", "sub"),
        ("{case}.nii", "a/b.nii", None),
        ("x.y{case}.nii", "xzyb.nii", None),
    ],
)
def test_patterns(pattern, path, case):
    match = pattern_regex(pattern).fullmatch(path)
    assert (match["case"] if match else None) == case


def test_every_patient_may_have_a_folder_of_one_name(tmp_path, phantoms):
    for index, place in enumerate(("p1/week-000", "p1/week-044", "p2/week-000")):
        write(tmp_path / place / "t1.nii.gz", np.rint(phantoms[index][0][..., 0]))
    data = DataSettings(layout="nifti", root=tmp_path, files={"t1": "{patient}/{case}/t1.nii.gz"})
    found = [(source.case_id, source.patient_id) for source in discover(data)]
    assert found == [("p1_week-000", "p1"), ("p1_week-044", "p1"), ("p2_week-000", "p2")]
    cases = find_inputs([tmp_path], data)
    assert [case.source.case_id for case in cases] == [case_id for case_id, _ in found]


@pytest.mark.parametrize("count", [2, 7])
def test_two_modalities_or_seven(tmp_path, phantoms, count):
    image, label = phantoms[0]
    names = ["flair", "t1ce", "dwi", "adc", "swi", "pd", "t2"][:count]
    for index, name in enumerate(names):
        write(
            tmp_path / "s 1" / f"{name}.nii.gz", (np.rint(image[..., 0]) * (index + 1)).astype("i2")
        )
    write(tmp_path / "masks" / "s 1.nii.gz", np.where(label > 0, 5, 0).astype(np.float32))
    settings = DataSettings(
        layout="nifti",
        root=tmp_path,
        files={name: f"{{case}}/{name}.nii*" for name in names},
        segmentation="masks/{case}.nii.gz",
        classes="tumour",
        label_map={0: 0, 5: 1},
    )
    assert settings.modalities == tuple(names)
    (source,) = discover(settings)
    case = source.load()
    assert case.image.shape[-1] == count and case.case_id == "s 1"
    np.testing.assert_array_equal(case.image[..., 1], 2 * case.image[..., 0])
    np.testing.assert_array_equal(case.label, label > 0)


def test_no_case_says_which_pattern_fits_nothing_and_what_is_there(tmp_path):
    for name in ("s1/flair.nii", "s1/T1.nii", "s2/flair.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    settings = DataSettings(layout="nifti", root=tmp_path, files={"flair": "{case}_flair.nii"})
    with pytest.raises(UserError) as error:
        discover(settings)
    assert "which holds 3 file(s), such as s1/T1.nii, s1/flair.nii, s2/flair.nii" in str(
        error.value
    )
    assert "data.files.flair '{case}_flair.nii' fits 0" in str(error.value)


def test_missing_and_doubled_files_are_named(tmp_path, phantoms):
    scan = np.rint(phantoms[0][0][..., 0]).astype(np.int16)
    for path in (
        "a/x_t1.nii",
        "a/x_t2.nii",
        "b/x_t1.nii",
        "c/x_t1.nii",
        "c/y_t1.nii",
        "c/x_t2.nii",
    ):
        write(tmp_path / path, scan)
    files = {"t1": "{case}/*_t1.nii", "t2": "{case}/*_t2.nii"}
    good, lacking, doubled = discover(DataSettings(layout="nifti", root=tmp_path, files=files))
    assert good.load().label is None
    with pytest.raises(UserError, match=r"case b has no t2 \(\{case\}/\*_t2.nii\), only x_t1.nii"):
        lacking.load()
    with pytest.raises(UserError, match=r"x_t1.nii and .*y_t1.nii both fit the pattern of t1"):
        doubled.load()
