import math

import numpy as np
import pytest

from kerasseg.metrics.surface import Surfels, surfel_areas


def area(mask, spacing):
    box = tuple(slice(0, side) for side in mask.shape)
    return Surfels.of_mask(mask, spacing, box).areas.sum()


def test_a_voxel_is_an_octahedron():
    # Its six corners are half a voxel away; eight triangles of sides a, b, c from the centre.
    a, b, c = (side / 2 for side in (1.0, 2.0, 3.0))
    triangle = math.sqrt((a * b) ** 2 + (b * c) ** 2 + (a * c) ** 2) / 2
    assert area(np.ones((1, 1, 1), bool), (1.0, 2.0, 3.0)) == pytest.approx(8 * triangle)


def test_a_box_has_flat_faces():
    # Faces between outer voxel centres, edges cut at 45 degrees, corners as of one voxel.
    mask = np.zeros((9, 10, 11), bool)
    mask[1:6, 2:8, 1:10] = True
    spans = (4, 5, 8)
    faces = 2 * (4 * 5 + 5 * 8 + 4 * 8)
    edges = 4 * sum(spans) * math.sqrt(0.5)
    assert area(mask, (1.0, 1.0, 1.0)) == pytest.approx(faces + edges + 8 * math.sqrt(3) / 8)


def test_inside_and_outside_have_one_surface():
    areas = surfel_areas((0.7, 1.9, 1.2))
    np.testing.assert_array_equal(areas, areas[::-1])
    assert areas[0] == areas[255] == 0 and (areas[1:255] > 0).all()


def test_axes_belong_to_their_spacing():
    voxels = np.random.default_rng(0).random((4, 5, 6)) < 0.4
    turned = area(voxels.transpose(2, 0, 1), (3.0, 1.0, 2.0))
    assert area(voxels, (1.0, 2.0, 3.0)) == pytest.approx(turned)


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (["000"], 0.216506),
        (["000", "001"], 0.707107),
        (["000", "011"], 0.433013),
        (["000", "111"], 0.433013),
        (["000", "001", "010"], 1.149519),
        (["000", "001", "110"], 0.923613),
        (["000", "001", "010", "011"], 1.0),
        (["000", "001", "010", "100"], 1.299038),
        (["000", "001", "011", "111"], 1.573132),
        (["000", "001", "110", "111"], 1.414214),
    ],
)
def test_the_shapes_of_a_unit_cube(voxels, expected):
    """The numbers are those of surface-distance's table, for where it is not installed."""
    code = sum(2 ** int(voxel, base=2) for voxel in voxels)
    assert surfel_areas((1.0, 1.0, 1.0))[code] == pytest.approx(expected, abs=1e-6)
