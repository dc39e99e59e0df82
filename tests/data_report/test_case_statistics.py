"""Each number against loops over voxels."""

import itertools
import pickle

import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.data_report.statistics import HEIGHT_BINS, TUMOUR, measure_case
from kerasseg.datasets.case import Case, lps_grid

SPACING = (3.0, 1.5, 0.5)


def case_of(image, label, classes="subregions", box=None) -> Case:
    depth, height, width, channels = image.shape
    grid = lps_grid((width, height, depth))
    return Case(
        case_id="a",
        patient_id="p",
        image=image.astype(np.float32),
        label=label,
        spacing=SPACING,
        affine=grid.our_affine,
        modalities=anatomy.MODALITIES[:channels],
        grid=grid,
        classes=classes,
        box=box,
    )


def parts(mask: np.ndarray) -> int:
    """Connected parts of a mask, corners touching, by flooding."""
    left = set(map(tuple, np.argwhere(mask)))
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            voxel = edge.pop()
            for step in itertools.product((-1, 0, 1), repeat=3):
                other = tuple(int(v) + s for v, s in zip(voxel, step, strict=True))
                if other in left:
                    left.remove(other)
                    edge.append(other)
    return count


@pytest.fixture(params=range(3))
def scan(request) -> tuple[np.ndarray, np.ndarray]:
    """A brain with air around it and sparse labels, of four different sizes."""
    rng = np.random.default_rng(request.param)
    image = np.zeros((9, 12, 11, 2))
    image[1:8, 2:10, 3:10] = rng.normal(0, 50, (7, 8, 7, 2))
    label = np.zeros(image.shape[:3], np.uint8)
    sparse = rng.random((5, 6, 5)) < 0.12
    label[2:7, 3:9, 4:9] = sparse * rng.integers(1, 4, sparse.shape)
    return image, label


def test_counts_parts_and_centre_are_those_of_loops_over_voxels(scan):
    image, label = scan
    found = measure_case(case_of(image, label))
    assert found.shape == (9, 12, 11) and found.spacing == SPACING
    assert found.brain_voxels == sum(bool(image[v].any()) for v in np.ndindex(label.shape))
    for name, class_id in anatomy.SUBREGIONS.items():
        assert found.voxels[name] == sum(int(v == class_id) for v in label.flat)
    assert found.tumour_voxels == sum(int(v > 0) for v in label.flat)
    assert found.millilitres == pytest.approx(3.0 * 1.5 * 0.5 / 1000)
    assert found.components == parts(label > 0)
    # The brain's box is 1:8, 2:10, 3:10; a voxel's centre lies in its middle.
    centre = (np.argwhere(label > 0).mean(axis=0) + 0.5 - (1, 2, 3)) / (7, 8, 7)
    np.testing.assert_allclose(found.centre, centre)


def test_presence_is_the_share_of_slices_at_each_height(scan):
    image, label = scan
    found = measure_case(case_of(image, label))
    assert found.brain_slices == 7
    fine = 700
    slices = [1 + int(7 * (i + 0.5) / (fine * HEIGHT_BINS)) for i in range(fine * HEIGHT_BINS)]
    for name, ids in [*((n, (i,)) for n, i in anatomy.SUBREGIONS.items()), (TUMOUR, (1, 2, 3))]:
        has = np.array([np.isin(label[s], ids).any() for s in range(9)], float)
        expected = has[slices].reshape(HEIGHT_BINS, fine).mean(axis=1)
        np.testing.assert_allclose(found.presence[name], expected, atol=1 / fine)


def test_many_slices_are_averaged_into_a_bin():
    label = np.zeros((200, 4, 5), np.uint8)
    label[0:4:2, 1, 1] = anatomy.ED
    found = measure_case(case_of(np.ones((200, 4, 5, 1)), label))
    assert found.presence["ED"][0] == pytest.approx(0.5)
    assert not found.presence["ED"][1:].any()


def test_parts_that_touch_at_a_corner_are_one():
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = anatomy.ET
    label[3, 4, 5] = anatomy.ED
    found = measure_case(case_of(np.ones((4, 5, 6, 1)), label))
    assert found.components == 2


def test_a_known_box_changes_nothing(scan):
    image, label = scan
    box = (slice(0, 8), slice(1, 11), slice(2, 11))
    found, boxed = measure_case(case_of(image, label)), measure_case(case_of(image, label, box=box))
    assert found.brain_voxels == boxed.brain_voxels and found.centre == boxed.centre
    assert found.intensities["t1"].mean == boxed.intensities["t1"].mean


def test_without_tumour_and_without_segmentation(scan):
    image, label = scan
    healthy = measure_case(case_of(image, np.zeros_like(label)))
    assert healthy.tumour_voxels == 0 and healthy.components == 0 and healthy.centre is None
    assert not healthy.presence[TUMOUR].any()
    unknown = measure_case(case_of(image, None))
    assert unknown.voxels is None and unknown.tumour_voxels is None
    assert unknown.components is None and unknown.centre is None and unknown.presence == {}
    assert unknown.brain_voxels == healthy.brain_voxels


def test_a_picture_of_tumour_from_healthy():
    image = np.ones((1, 6, 8, 1))
    label = np.zeros((1, 6, 8), np.uint8)
    label[0, 1:3, 4:8] = 1
    found = measure_case(case_of(image, label, classes="tumour"))
    assert found.voxels == {"tumour": 8} and found.components == 1
    assert found.centre == pytest.approx((0.5, 2 / 6, 6 / 8))
    np.testing.assert_allclose(found.presence["tumour"], 1)


def test_no_voxels_travel_between_processes(scan):
    image, label = scan
    large = np.tile(image, (1, 8, 8, 1))
    assert len(pickle.dumps(measure_case(case_of(large, np.tile(label, (1, 8, 8)))))) < 20_000
