import gzip

import nibabel as nib
import numpy as np
import pytest

from kerasseg.datasets.nifti import read_nifti
from kerasseg.errors import UserError
from tests.conftest import LPS, write_nifti


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "ASL"])
def test_every_header_orientation_gives_the_same_array(tmp_path, codes):
    """The same voxels in the world, stored along other axes, come back as one array."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 1000, (5, 6, 7)).astype(np.int16)
    lps = nib.Nifti1Image(array.transpose(2, 1, 0), LPS * [2, 1.5, 3, 1])
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(lps.as_reoriented(turn), tmp_path / "scan.nii.gz")
    read, affine = read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read, array)
    assert spacing_of(affine) == pytest.approx((3, 1.5, 2))
    # Index (d, h, w) must reach the place in the world that LPS index (w, h, d) reaches.
    np.testing.assert_allclose(affine @ [1, 2, 3, 1], lps.affine @ [3, 2, 1, 1], atol=1e-5)


def test_scale_slope_and_trailing_axis(tmp_path):
    image = nib.Nifti1Image(np.full((3, 4, 5, 1), 7, np.int16), LPS)
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, tmp_path / "scan.nii")
    array, _ = read_nifti(tmp_path / "scan.nii")
    assert array.shape == (5, 4, 3) and array.dtype == np.float32
    assert np.unique(array).size == 1


def test_refused_files(tmp_path):
    whole = tmp_path / "whole.nii.gz"
    write_nifti(whole, np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16))
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    short = tmp_path / "short.nii"
    short.write_bytes(gzip.decompress(whole.read_bytes())[:-100])
    four = tmp_path / "four.nii"
    write_nifti(four, np.zeros((3, 3, 3, 2), np.int16))
    for path, words in [
        (cut, "damaged or truncated"),
        (text, "damaged or truncated"),
        (short, "damaged or truncated"),
        (four, "expected one 3-D volume"),
        (tmp_path / "none.nii", "no such file"),
    ]:
        with pytest.raises(UserError) as error:
            read_nifti(path)
        assert words in str(error.value) and str(path) in str(error.value)
