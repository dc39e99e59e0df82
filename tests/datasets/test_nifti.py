import gzip

import nibabel as nib
import numpy as np
import pytest

from kerasseg.datasets.case import Grid
from kerasseg.datasets.nifti import read_nifti
from kerasseg.datasets.nifti import write_nifti as write_nifti_of_ours
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
    voxels, grid = read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(grid.to_ours(voxels), array)
    assert grid.spacing == pytest.approx((3, 1.5, 2)) and grid.our_shape == (5, 6, 7)
    affine = grid.our_affine
    # Index (d, h, w) must reach the place in the world that LPS index (w, h, d) reaches.
    np.testing.assert_allclose(affine @ [1, 2, 3, 1], lps.affine @ [3, 2, 1, 1], atol=1e-5)


def test_scale_slope_and_trailing_axis(tmp_path):
    image = nib.Nifti1Image(np.full((3, 4, 5, 1), 7, np.int16), LPS)
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, tmp_path / "scan.nii")
    voxels, _ = read_nifti(tmp_path / "scan.nii")
    assert voxels.shape == (3, 4, 5)
    assert np.unique(voxels).tolist() == [0.5 * 7 + 1]


def test_refused_files(tmp_path):
    whole = tmp_path / "whole.nii.gz"
    write_nifti(whole, np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16))
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(gzip.decompress(whole.read_bytes()))
    empty = tmp_path / "empty.nii"
    empty.write_bytes(b"")
    noise = bytearray(whole.read_bytes())
    noise[len(noise) // 2] ^= 255
    flipped = tmp_path / "flipped.nii.gz"
    flipped.write_bytes(noise)
    loop = tmp_path / "loop.nii"
    loop.symlink_to(loop)
    colour = tmp_path / "colour.nii"
    rgb = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, LPS), colour)
    short = tmp_path / "short.nii"
    short.write_bytes(gzip.decompress(whole.read_bytes())[:-100])
    four = tmp_path / "four.nii"
    write_nifti(four, np.zeros((3, 3, 3, 2), np.int16))
    for path, words in [
        (cut, "damaged or truncated"),
        (plain, "named .gz, but it is not compressed with gzip"),
        (empty, "it is empty"),
        (flipped, "damaged or truncated"),
        (loop, "cannot be read as NIfTI (Too many levels of symbolic links"),
        (tmp_path, "is a folder"),
        (colour, "expected grey values"),
        (text, "damaged or truncated"),
        (short, "damaged or truncated"),
        (four, "expected one 3-D volume"),
        (tmp_path / "none.nii", "no such file"),
    ]:
        with pytest.raises(UserError) as error:
            read_nifti(path)
        assert words in str(error.value) and str(path) in str(error.value)


def test_nifti_2_and_compressed_files_of_any_name_are_read(tmp_path):
    values = np.random.default_rng(1).integers(-50, 99, (4, 5, 6)).astype(np.int16)
    nib.save(nib.Nifti2Image(values, LPS), tmp_path / "second.nii.gz")
    (tmp_path / "second.nii").write_bytes((tmp_path / "second.nii.gz").read_bytes())
    for name in ("second.nii.gz", "second.nii"):
        voxels, _ = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(voxels, values)


def test_a_gzip_file_of_several_members_is_one_scan(tmp_path):
    values = np.random.default_rng(1).integers(0, 99, (14, 5, 6)).astype(np.int16)
    write_nifti(tmp_path / "scan.nii", values)
    data = (tmp_path / "scan.nii").read_bytes()
    parts = gzip.compress(data[:500]) + gzip.compress(data[500:])
    (tmp_path / "scan.nii.gz").write_bytes(parts)
    voxels, _ = read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(voxels, values)


def test_writing_gives_back_the_same_file_grid(tmp_path):
    values = np.random.default_rng(1).integers(0, 4, (4, 5, 6)).astype(np.uint8)
    affine = LPS * [2, 1.5, 3, 1]
    for name in ("out.nii.gz", "out.nii"):
        write_nifti_of_ours(tmp_path / name, values, Grid(values.shape, affine), "--output")
        again = nib.load(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(again.dataobj), values)
        np.testing.assert_allclose(again.affine, affine)
        assert again.get_data_dtype() == np.uint8


def test_the_header_has_the_affine_in_both_forms_unless_it_shears(tmp_path):
    voxels = np.zeros((3, 4, 5), np.uint8)
    turned = np.eye(4)
    turned[:3, :3] = [[0, -2, 0], [0.6, 0, -1.2], [0.8, 0, 0.9]]  # voxels of 1, 2 and 1.5 mm
    turned[:3, 3] = 7, -8, 9
    sheared = turned + np.diag([0.25, 0, 0, 0])
    for affine, code in ((turned, 1), (sheared, 0)):
        write_nifti_of_ours(tmp_path / "a.nii.gz", voxels, Grid(voxels.shape, affine), "x")
        image = nib.load(tmp_path / "a.nii.gz")
        np.testing.assert_allclose(image.affine, affine, atol=1e-6)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, code)
        if code:
            np.testing.assert_allclose(image.get_qform(), affine, atol=1e-5)
