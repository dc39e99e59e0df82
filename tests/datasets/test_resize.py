"""Pictures resized: by averages, air and proportions kept, and the way back."""

import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.pictures import discover
from kerasseg.datasets.resample import restore_label

HEIGHT, WIDTH = 24, 32


def read(root, size, pixels, mask):
    for name, values in (("images", pixels), ("masks", mask)):
        (root / name).mkdir()
        Image.fromarray(values).save(root / name / "a.png")
    settings = DataSettings(layout="image_pairs", root=root, size=size)
    (source,) = discover(settings)
    return read_case(source, settings)


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    pixels = random.integers(1, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    pixels[:4, :6] = 0
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 5:12] = 255
    return pixels, mask


def test_half_the_size_of_a_mask_is_the_majority_of_each_four(tmp_path, picture):
    pixels, mask = picture
    case = read(tmp_path, (12, 16), pixels, mask)
    assert case.image.shape == (1, 12, 16, 1) and case.spacing == (1, 2, 2)
    share = (mask > 0).reshape(12, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(case.label[0], share >= 0.5)
    assert not case.image[0, :2, :3].any(), "air stays air"
    # Away from the edge the triangle filter of twice the width: weights 1, 3, 3, 1.
    weights = np.array([1, 3, 3, 1]) / 8
    expected = weights @ pixels[7:11, 7:11].astype(float) @ weights
    assert case.image[0, 4, 4, 0] == pytest.approx(expected, abs=1e-3)


def test_twice_the_height_is_linear_between_the_pixels(tmp_path, picture):
    pixels, mask = picture
    pixels = np.maximum(pixels, 1)
    case = read(tmp_path, (48, 32), pixels, mask)
    rows = np.clip(np.arange(48) / 2 - 0.25, 0, 23)
    low = np.minimum(rows.astype(int), 22)
    share = (rows - low)[:, None]
    expected = pixels[low] * (1 - share) + pixels[low + 1] * share
    np.testing.assert_allclose(case.image[0, ..., 0], expected, atol=1e-3)
    np.testing.assert_array_equal(case.label[0], np.repeat(mask > 0, 2, axis=0))


def test_the_way_back_into_the_pictures_own_pixels(tmp_path, picture):
    pixels, mask = picture
    case = read(tmp_path, (48, 64), pixels, mask)
    assert case.grid.shape == (WIDTH, HEIGHT, 1)
    back = restore_label(case.label, case.affine, case.grid)
    np.testing.assert_array_equal(back[..., 0].T, mask > 0)


def test_a_picture_of_that_size_is_left_alone(tmp_path, picture):
    pixels, mask = picture
    case = read(tmp_path, (HEIGHT, WIDTH), pixels, mask)
    np.testing.assert_array_equal(case.image[0, ..., 0], pixels)
