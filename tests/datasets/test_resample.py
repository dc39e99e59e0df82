import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, Grid
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.resample import resample_case, restore_label


def oblique(codes: str, spacing: tuple[float, ...], angle: float) -> np.ndarray:
    """A file's affine with these axes, voxel sizes in mm, turned by `angle` about two axes."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag(spacing)
    affine[:3, 3] = (-17.3, 42.1, 8.8)
    return affine


def case_of(voxels: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Case:
    grid = Grid(label.shape, affine)
    image = np.stack([np.ascontiguousarray(grid.to_ours(voxels))], axis=-1).astype(np.float32)
    return Case(
        case_id="case",
        patient_id="case",
        image=image,
        label=np.ascontiguousarray(grid.to_ours(label)),
        spacing=grid.spacing,
        affine=grid.our_affine,
        modalities=("flair",),
        grid=grid,
    )


CODES = ["".join(c) for c in itertools.product("LR", "AP", "SI")] + ["PIR", "SAL", "ILA"]


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.sampled_from([0.5, 0.94, 1.0, 1.3, 5.0])] * 3),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.integers(0, 99),
)
def test_to_our_axes_and_back_is_exact(codes, spacing, angle, seed):
    """Oblique, flipped, anisotropic: every voxel returns to its place in the file."""
    label = np.random.default_rng(seed).integers(0, 4, (7, 5, 6)).astype(np.uint8)
    affine = oblique(codes, spacing, angle)
    case = case_of(label.astype(np.int16), label, affine)
    np.testing.assert_array_equal(restore_label(case.label, case.affine, case.grid), label)
    # A voxel of ours lies in the world where it lay in the file.
    index = np.array([1, 2, 3])
    marked = np.zeros(label.shape, np.uint8)
    ours = np.zeros(case.label.shape, np.uint8)
    ours[tuple(index)] = 1
    marked = restore_label(ours, case.affine, case.grid)
    place = np.argwhere(marked)[0]
    np.testing.assert_allclose(
        (affine @ [*place, 1])[:3], (case.affine @ [*index, 1])[:3], atol=1e-9
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("angle", [0.0, 0.2])
@pytest.mark.parametrize("resampled", [False, True])
def test_a_segmentation_is_written_in_the_grid_of_the_input_file(tmp_path, codes, angle, resampled):
    """Files in, a segmentation of ours out: the same voxels at the same place in the world."""
    affine = oblique(codes, (1.0, 2.0, 2.0), angle)
    label = np.zeros((14, 11, 12), np.uint8)
    label[2:10, 3:9, 4:10] = 1
    label[4:8, 5:8, 6:9] = 3
    tissue = np.arange(label.size).reshape(label.shape) % 7
    scan = (np.where(label > 0, 500, 100) + tissue).astype(np.int16)
    scan[0] = 0
    nib.save(nib.Nifti1Image(scan, affine), tmp_path / "case_flair.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "case_seg.nii.gz")
    data = DataSettings(
        layout="brats_nifti",
        root=tmp_path,
        modalities=("flair",),
        spacing=(1.0, 1.0, 1.0) if resampled else None,
    )
    (source,) = discover(data)
    case = read_case(source, data)
    assert (case.image.shape[:3] != case.grid.our_shape) == resampled
    voxels = restore_label(case.label, case.affine, case.grid)
    write_nifti(tmp_path / "prediction.nii.gz", voxels, case.grid, "--output")
    written = nib.load(tmp_path / "prediction.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(written.dataobj), label)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(CODES),
    st.tuples(*[st.sampled_from([0.8, 1.0, 2.0, 3.5])] * 3),
    st.sampled_from([0.0, 0.25]),
)
def test_a_ball_survives_resampling_and_the_way_back(codes, spacing, angle):
    shape = tuple(int(36 / s) for s in spacing)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * spacing
    centre = np.array([18.0, 17.0, 19.0])
    radius = np.linalg.norm(grid - centre, axis=-1)
    label = np.where(radius < 6, 3, np.where(radius < 12, 2, 0)).astype(np.uint8)
    image = np.where(radius < 17, 100.0, 0.0)
    case = case_of(image, label, oblique(codes, spacing, angle))
    new = resample_case(case, (1.0, 1.0, 1.0), order=3)
    assert new.spacing == pytest.approx((1, 1, 1))
    assert set(np.unique(new.label)) <= {0, 2, 3}, "no id that was not there"
    volume = 4 / 3 * np.pi * 12**3
    assert new.label.astype(bool).sum() == pytest.approx(volume, rel=0.12)
    # The centre of mass is where it was in the world.
    for before, after in ((case, new),):
        places = [
            (c.affine @ np.append(np.argwhere(c.label > 0).mean(axis=0), 1))[:3]
            for c in (before, after)
        ]
        np.testing.assert_allclose(*places, atol=0.35)
    back = restore_label(new.label, new.affine, new.grid)
    assert back.shape == label.shape
    overlap = 2 * ((back > 0) & (label > 0)).sum() / ((back > 0).sum() + (label > 0).sum())
    assert overlap > 0.93


def test_air_stays_exactly_zero_where_a_spline_would_ring():
    image = np.zeros((12, 14, 16))
    image[3:9, 3:10, 4:12] = 1000 + np.random.default_rng(0).normal(0, 50, (6, 7, 8))
    label = (image > 0).astype(np.uint8)
    case = case_of(image, label, np.diag([-2.0, -2.0, 2.0, 1]))
    new = resample_case(case, (1.0, 1.0, 1.0), order=3)
    assert new.image.shape[:3] == (32, 28, 24)
    inside = new.image[..., 0] != 0
    assert inside.sum() == pytest.approx(8 * (image > 0).sum(), rel=0.01)
    np.testing.assert_array_equal(inside, new.label > 0)


def test_linear_resampling_is_the_closed_form_of_a_ramp():
    ramp = np.broadcast_to(np.arange(10.0, 20.0), (3, 4, 10)).copy()
    affine = np.diag([-1.0, -1.0, 2.0, 1])
    case = case_of(ramp, np.zeros((3, 4, 10), np.uint8), affine)
    new = resample_case(case, (1.0, 1.0, 1.0), order=1)
    # Voxel centres of 1 mm lie a quarter of a 2 mm voxel left and right of the old centres.
    expected = np.clip(10 + np.arange(20) / 2 - 0.25, 10, 19)
    np.testing.assert_allclose(new.image[:, 1, 1, 0], expected, atol=1e-5)


def test_the_spacing_there_is_already_changes_nothing():
    label = np.zeros((4, 5, 6), np.uint8)
    case = case_of(np.ones((4, 5, 6)), label, np.diag([-1.00001, -1, 1, 1]))
    assert resample_case(case, (1.0, 1.0, 1.0), order=3) is case


def test_other_axes_are_refused():
    label = np.zeros((4, 5, 6), np.uint8)
    case = case_of(np.ones((4, 5, 6)), label, np.diag([-1.0, -1, 1, 1]))
    turned = oblique("LPS", (1, 1, 1), 0.3)
    with pytest.raises(ValueError, match="different axes"):
        restore_label(np.zeros((6, 5, 4), np.uint8), Grid((4, 5, 6), turned).our_affine, case.grid)
