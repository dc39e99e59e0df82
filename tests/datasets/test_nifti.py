import gzip

import nibabel as nib
import numpy as np
import pytest

from kerasseg.datasets.case import Grid
from kerasseg.datasets.nifti import read_header, read_nifti
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


def test_a_plain_file_that_kept_the_name_of_a_packed_one_is_read(tmp_path):
    values = np.random.default_rng(1).integers(-50, 99, (4, 5, 6)).astype(np.int16)
    write_nifti(tmp_path / "scan.nii", values)
    (tmp_path / "scan.nii").rename(tmp_path / "scan.nii.gz")
    voxels, grid = read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(voxels, values)
    assert read_header(tmp_path / "scan.nii.gz")[0] == grid.shape == (4, 5, 6)


def test_several_channels_behind_an_axis_of_time(tmp_path):
    values = np.random.default_rng(1).integers(0, 99, (4, 5, 6, 1, 3)).astype(np.int16)
    write_nifti(tmp_path / "scan.nii.gz", values)
    voxels, _ = read_nifti(tmp_path / "scan.nii.gz", dimensions=4)
    np.testing.assert_array_equal(voxels, values[:, :, :, 0])
    assert read_header(tmp_path / "scan.nii.gz")[0] == (4, 5, 6, 3)


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


RAS = LPS * [[-1], [-1], [1], [1]]
MOVED = LPS + np.outer([0, 1, 0, 0], [0, 0, 0, 27])


def header_of(path, *, sform=None, qform=None, unit=0, zooms=None):
    """Write a scan with a header of (code, affine) per form; returns its `Grid`."""
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.int16), None)
    image.header.set_zooms(zooms or (1, 1, 1))
    image.set_qform(*(qform or (None, 0)))
    image.set_sform(*(sform or (None, 0)))
    image.header["xyzt_units"] = unit
    if zooms:
        image.header["pixdim"][1:4] = zooms
    nib.save(image, path)
    return read_nifti(path)[1]


@pytest.mark.parametrize(
    ("header", "affine", "words"),
    [
        ({"sform": (LPS, 1), "qform": (LPS, 1), "unit": 2}, LPS, []),
        ({"qform": (LPS, 1), "unit": 10}, LPS, []),
        ({"sform": (LPS / 1e3, 2), "unit": 1, "zooms": (1e-3, 1e-3, 1e-3)}, LPS, []),
        ({"qform": (LPS * 1e3, 2), "unit": 3}, LPS, []),
        ({"sform": (LPS, 1), "unit": 1}, LPS, ["voxels of 1000 x 1000 x 1000 mm"]),
        ({"sform": (LPS, 1), "qform": (RAS, 1)}, LPS, ["LPS by its sform, which counts, and RAS"]),
        ({"sform": (LPS, 1), "zooms": (1, 1, 3)}, LPS, ["1 x 1 x 1 by its sform", "1 x 1 x 3 by"]),
        ({"sform": (LPS, 2), "qform": (MOVED, 1)}, LPS, ["two places, 27 voxels apart"]),
        ({"sform": (MOVED, 0), "qform": (LPS, 1)}, LPS, []),
        ({"sform": (LPS * 0, 1), "qform": (LPS, 1)}, LPS, ["so its qform counts"]),
        ({"zooms": (1, 2, 3)}, None, ["does not say how the scan lies in space"]),
    ],
    ids=["mm", "mm s", "m", "um", "no m", "turned", "zooms", "moved", "unset", "flat", "none"],
)
def test_the_place_that_a_header_tells_is_read_and_written_back(tmp_path, header, affine, words):
    """In mm, with what contradicts itself said; a label beside the scan lies as the scan does."""
    for form in ("sform", "qform"):
        if form in header:
            header[form][0][3] = 0, 0, 0, 1
    grid = header_of(tmp_path / "scan.nii.gz", **header)
    if affine is None:
        affine = nib.load(tmp_path / "scan.nii.gz").affine
    np.testing.assert_allclose(grid.affine, affine, atol=1e-5)
    notes = "; ".join(grid.header.notes)
    assert all(part in notes for part in words) and bool(notes) == bool(words), notes
    write_nifti_of_ours(tmp_path / "label.nii.gz", np.ones(grid.shape, np.uint8), grid, "x")
    scan, label = (nib.load(tmp_path / f"{name}.nii.gz").header for name in ("scan", "label"))
    for key in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        np.testing.assert_array_equal(
            scan[key] if key != "xyzt_units" else scan[key] & 7, label[key]
        )
    np.testing.assert_allclose(scan.get_best_affine(), label.get_best_affine(), rtol=1e-6)
    np.testing.assert_allclose(scan.get_qform(), label.get_qform(), rtol=1e-6)
