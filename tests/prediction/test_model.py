"""`kerasseg.load`."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

import kerasseg
from kerasseg.errors import UserError
from tests.conftest import LPS, to_file_axes, write_brats, write_nifti


def test_import_is_light():
    probe = (
        "import sys, kerasseg; heavy = {'tensorflow', 'keras', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kerasseg.nothing


def test_a_path_and_an_array_say_the_same(runs, phantoms, tmp_path):
    folder = write_brats(tmp_path, "a", phantoms[0])
    model = kerasseg.load(runs["volumes"])
    assert model.modalities == ("flair", "t1", "t1ce", "t2") and model.target == "regions"
    by_path = model.predict(str(folder))
    image = np.rint(phantoms[0][0]).astype(np.int16)
    by_array = model.predict(image, spacing=(1, 1, 1), uncertainty=True)
    assert by_path.label.shape == image.shape[:3] and by_path.label.dtype == np.uint8
    assert by_path.probabilities.shape == (*image.shape[:3], 3) and by_path.label.any()
    assert by_path.channels == ("WT", "TC", "ET") and by_path.entropy is None
    np.testing.assert_array_equal(by_array.label, by_path.label)
    np.testing.assert_allclose(by_array.probabilities, by_path.probabilities, atol=1e-6)
    assert by_array.entropy.shape == by_array.probabilities.shape and by_array.variance is None
    by_path.save(tmp_path / "out.nii.gz")
    saved = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(saved.affine, LPS)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), to_file_axes(by_path.label))


def test_spacing_of_an_array(runs, phantoms):
    found = kerasseg.load(runs["volumes"]).predict(phantoms[0][0], spacing=(3, 1.5, 0.5))
    assert found.spacing == (3, 1.5, 0.5)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), (3, 1.5, 0.5))


def test_variance_of_test_time_augmentation(runs, phantoms):
    model = kerasseg.load(runs["slices"], overrides=["evaluation.flips=[width]"])
    found = model.predict(phantoms[0][0][..., [3, 0]], uncertainty=True)
    assert found.variance.shape == found.probabilities.shape and found.variance.max() > 0


def test_arrays_that_cannot_be_predicted(runs, phantoms):
    model, image = kerasseg.load(runs["volumes"]), phantoms[0][0]
    with pytest.raises(UserError, match=r"has 2 channel.* width, 4\) with the channels flair, t1"):
        model.predict(image[..., :2])
    with pytest.raises(UserError, match=r"shape \(24, 22, 4\), expected \(depth, height"):
        model.predict(image[0])
    with pytest.raises(UserError, match=r"array is a single slice, but .*volumes takes volumes"):
        model.predict(image[9:10])
    with pytest.raises(UserError, match="spacing is"):
        model.predict(image, spacing=(1, 1, 0))
    with pytest.raises(UserError, match=r"<U1 of shape .* holds no scan"):
        model.predict(np.full(image.shape, "a"))
    bad = image.copy()
    bad[3, 4, 5, 2] = np.nan
    with pytest.raises(UserError, match=r"t1ce has 1 NaN .*\(3, 4, 5\)"):
        model.predict(bad)


def test_a_path_of_several_cases_and_runs_of_several_targets(runs, phantoms, tmp_path):
    for name in "ab":
        write_brats(tmp_path, name, phantoms[0])
    with pytest.raises(UserError, match="holds 2 cases, such as a and b: name one of them"):
        kerasseg.load(runs["volumes"]).predict(tmp_path)
    with pytest.raises(UserError, match=r"an ensemble needs runs of one model.target"):
        kerasseg.load(runs["volumes"], runs["labels"])
    with pytest.raises(UserError, match="at least one run"):
        kerasseg.load()


def test_a_single_slice_in_a_file(runs, phantoms, tmp_path):
    for channel, name in enumerate(("flair", "t1", "t1ce", "t2")):
        array = to_file_axes(phantoms[0][0][9:10, ..., channel])
        write_nifti(tmp_path / f"a_{name}.nii.gz", array)
    with pytest.raises(UserError, match=r"a is a single slice, but .*volumes takes volumes"):
        kerasseg.load(runs["volumes"]).predict(tmp_path)
    assert kerasseg.load(runs["slices"]).predict(tmp_path).label.shape == (1, 24, 22)
