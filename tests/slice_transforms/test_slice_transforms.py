"""Slices through lists of transforms: image with label, independent draws, range and air."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerasseg.slice_transforms import REFUSED, SliceTransforms, import_albumentations, names
from tests.slice_transforms.test_every_transform import ARGUMENTS, OF_OTHER_SIZE, brain

pytestmark = pytest.mark.usefixtures("albumentations_is_here")
LABEL_ONLY = {"PixelDropout", "CoarseDropout", "Erasing", "GridDropout", "XYMasking"}
"""They take from the image what stays in the label; masks of time and frequency do, too."""


def geometric():
    package = import_albumentations()
    left_out = set(REFUSED) | OF_OTHER_SIZE | LABEL_ONLY | {"TimeMasking", "FrequencyMasking"}
    return [
        name
        for name in names()
        if name not in left_out and issubclass(getattr(package, name), package.DualTransform)
    ]


def test_the_label_goes_where_the_image_goes():
    """The label as a channel of the image, both by the nearest voxel, comes out as the label."""
    found = geometric()
    assert len(found) > 20
    for name in found:
        check_label(name)


def check_label(name):
    package = import_albumentations()
    options = ARGUMENTS.get(name, {}) | {"p": 1.0}
    if "interpolation" in getattr(package, name).InitSchema.model_fields:
        options["interpolation"] = 0
    image, _ = brain(3)
    random = np.random.default_rng(5)
    label = np.kron(random.integers(0, 4, (6, 6)), np.ones((4, 4))).astype(np.uint8)
    image[..., 1] = label
    transforms = SliceTransforms([{name: options}], 3)
    moved_somewhere = False
    for seed in range(6):
        changed, moved = transforms(image, label, seed)
        assert np.array_equal(changed[..., 1], moved), name
        assert set(np.unique(moved)) <= set(range(4)), name
        moved_somewhere |= not np.array_equal(moved, label)
    same = {"CenterCrop", "Crop", "CropNonEmptyMaskIfExists", "LongestMaxSize", "NoOp", "Pad"}
    same |= {"PadIfNeeded", "RandomCrop", "Resize", "SmallestMaxSize"}
    assert moved_somewhere or name in same, name


def test_transforms_of_one_list_draw_independently():
    """Compose.set_random_seed would mirror both axes or none."""
    flips = SliceTransforms([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}], 1)
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    corners = [int(flips(image, image[..., 0].astype(np.uint8), s)[0][0, 0, 0]) for s in range(200)]
    counts = [corners.count(corner) for corner in (0, 2, 3, 5)]
    assert sum(counts) == 200 and min(counts) > 25


def test_intensities_go_through_the_unit_range_of_each_modality():
    """Against the formula: brightness of 0..1 by 0.2, cut off at 1, brought back, air 0."""
    image, label = brain(4, (9, 14))
    image[..., 2] = 0  # a modality that is missing
    image *= np.array([1, 5, 1, 0.1], np.float32)
    options = {"brightness_limit": [0.2, 0.2], "contrast_limit": [0, 0], "p": 1.0}
    changed, _ = SliceTransforms([{"RandomBrightnessContrast": options}], 4)(image, label, 0)
    low, high = image.min((0, 1)), image.max((0, 1))
    expected = np.minimum(image + 0.2 * (high - low), high)
    assert np.allclose(changed, np.where(image == 0, 0, expected), atol=1e-4)
    two_slices = SliceTransforms([{"InvertImg": {"p": 1.0}}], 2)(image, label, 0)[0]
    low = np.minimum(low[:2], low[2:])
    high = np.maximum(high[:2], high[2:])
    expected = np.tile(low + high, 2) - image
    assert np.allclose(two_slices, np.where(image == 0, 0, expected), atol=1e-4)


def test_threads_do_not_disturb_each_other_and_seeds_differ():
    terms = [
        {"Affine": {"rotate": [-20, 20], "p": 0.7}},
        {"ElasticTransform": {"alpha": 20, "p": 0.5}},
        {"GaussNoise": {"p": 0.5}},
    ]
    image, label = brain(4)
    seeds = [(1 << 63) + s for s in range(40)]
    alone = [SliceTransforms(terms, 4)(image, label, seed) for seed in seeds]
    shared = SliceTransforms(terms, 4)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: shared(image, label, seed), seeds))
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert len({a[0].tobytes() for a in alone}) > 30


def test_what_is_turned_in_has_the_value_of_the_background():
    """Two slices of two modalities that are not skull-stripped: no bright frame."""
    background = np.array([-1.5, -0.5], np.float32)
    random = np.random.default_rng(3)
    image = random.uniform(0.5, 1.0, (12, 12, 4)).astype(np.float32)
    shift = {"ShiftScaleRotate": {"shift_limit": [0.3, 0.3], "rotate_limit": [0, 0], "p": 1.0}}
    label = np.ones((12, 12), np.uint8)
    changed, moved = SliceTransforms([shift], 2)(image, label, 5, background)
    away = moved == 0
    assert 0.1 < away.mean() < 0.9
    dark = np.isclose(changed[away], [-1.5, -0.5, -1.5, -0.5], atol=1e-6).all(axis=-1)
    assert dark.mean() > 0.7, "the others are between it and the edge of the slice"
    assert (changed[away] < 0.5).mean() > 0.9
    zero = SliceTransforms([shift], 2)(image, label, 5)[0][away] == 0
    np.testing.assert_array_equal(zero.all(axis=-1), dark)
