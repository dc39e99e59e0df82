"""All transforms of the installed Albumentations: usable on z-scores, or refused for a reason."""

import warnings

import numpy as np
import pytest

from kerasseg.slice_transforms import (
    ONE_CHANNEL,
    REFUSED,
    SliceTransforms,
    build,
    check_slice_transforms,
    import_albumentations,
    names,
)

pytestmark = pytest.mark.usefixtures("albumentations_is_here")
SIZE = (24, 24)
ARGUMENTS = {
    "Affine": {"rotate": [-30, 30], "scale": [0.8, 1.2]},
    "CenterCrop": {"height": 24, "width": 24},
    "Crop": {"x_max": 24, "y_max": 24},
    "CropAndPad": {"px": 3},
    "CropNonEmptyMaskIfExists": {"height": 24, "width": 24},
    "FrequencyMasking": {"freq_mask_param": 10},
    "ElasticTransform": {"alpha": 30, "sigma": 4},
    "LongestMaxSize": {"max_size": 24},
    "PadIfNeeded": {"min_height": 24, "min_width": 24},
    "RandomCrop": {"height": 24, "width": 24},
    "RandomResizedCrop": {"size": [24, 24]},
    "RandomSizedCrop": {"min_max_height": [14, 22], "size": [24, 24]},
    "Resize": {"height": 24, "width": 24},
    "SmallestMaxSize": {"max_size": 24},
    "TimeMasking": {"time_mask_param": 10},
}
"""Where the defaults do not suit a patch of 24 x 24, or do nothing."""
OF_OTHER_SIZE = {"RandomCropFromBorders", "RandomScale"}


def usable():
    """Return the names of all that suit a patch."""
    return [n for n in names() if n not in REFUSED and n not in OF_OTHER_SIZE]


def brain(channels, size=SIZE):
    random = np.random.default_rng(3)
    image = random.normal(0.3, 1.4, (*size, channels)).astype(np.float32)
    label = random.integers(0, 4, size).astype(np.uint8)
    image[:4], label[:4] = 0, 0
    image[:, -5:], label[:, -5:] = 0, 0
    return image, label


def test_what_is_not_refused_suits_any_number_of_channels_and_is_a_function_of_the_seed():
    found = usable()
    assert len(found) > 60
    for name in found:
        check_transform(name)


def check_transform(name):
    arguments = ARGUMENTS.get(name, {}) | {"p": 1.0}
    for modalities, slices in ((1, 1), (4, 1), (2, 3)):
        if modalities == 1 and name == "ChannelDropout":
            continue  # there would be nothing left
        if modalities > 1 and name in ONE_CHANNEL:
            with pytest.raises(ValueError, match=f"{name} is for patches of one channel"):
                check_slice_transforms([{name: arguments}], SIZE, modalities, slices)
            continue
        check_slice_transforms([{name: arguments}], SIZE, modalities, slices)
        image, label = brain(modalities * slices)
        before = image.copy(), label.copy()
        one, other = (SliceTransforms([{name: arguments}], modalities) for _ in range(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other(image, label, 1)  # draws something else first
            first, second = one(image, label, 7), other(image, label, 7)
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)), name
        assert np.array_equal(image, before[0]) and np.array_equal(label, before[1]), name
        assert first[0].dtype == np.float32 and first[1].dtype == np.uint8, name
        if issubclass(type(build(name, arguments)), import_albumentations().ImageOnlyTransform):
            assert not first[0][image == 0].any(), f"{name}: air is not air any more"
            assert np.array_equal(first[1], label), name


@pytest.mark.parametrize("name", sorted(OF_OTHER_SIZE))
def test_random_sizes_are_refused(name):
    with pytest.raises(ValueError, match=r"patch of \[24, 24\].*pipeline.patch_size"):
        check_slice_transforms([{name: {}}], SIZE, 4)


def test_the_refused_are_there_and_those_for_colours_fail_on_four_modalities():
    """So that a new version does not leave a reason behind that is none any more."""
    package = import_albumentations()
    assert [name for name in REFUSED if not hasattr(package, name)] == []
    image, label = brain(4)
    for name, reason in REFUSED.items():
        with pytest.raises(ValueError, match=f"{name} cannot be used: "):
            build(name, {})
        if "red, green and blue" in reason:
            with pytest.raises((ValueError, TypeError)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                package.Compose([getattr(package, name)(p=1.0)])(image=image, mask=label)


def test_albumentations_itself_clips_z_scores():
    """Why those of intensities are wrapped: should it stop, so may the wrapping."""
    package = import_albumentations()
    image, label = brain(4)
    clipped = set()
    for name in usable():
        if name in ONE_CHANNEL or name == "ChannelDropout":
            continue
        transform = build(name, ARGUMENTS.get(name, {}) | {"p": 1.0})
        try:
            with warnings.catch_warnings(), np.errstate(invalid="ignore"):
                warnings.simplefilter("ignore")
                changed = package.Compose([transform])(image=image, mask=label)["image"]
        except ValueError:  # ShotNoise: no Poisson number of that
            continue
        if not np.isfinite(changed).all() or (changed.min() >= 0 and changed.max() <= 1):
            clipped.add(name)
    assert {"RandomBrightnessContrast", "GaussNoise", "RandomGamma"} <= clipped
    geometric = {n for n in clipped if issubclass(getattr(package, n), package.DualTransform)}
    assert geometric == set()


def test_pytorch_that_happens_to_be_installed_changes_nothing(monkeypatch):
    """Albumentations offers ToTensorV2 and ToTensor3D then."""
    package, before = import_albumentations(), names()
    for name in ("ToTensorV2", "ToTensor3D"):
        kind = type(name, (package.BasicTransform,), {})
        monkeypatch.setattr(package, name, kind, raising=False)
        with pytest.raises(ValueError, match=f"{name} cannot be used: it makes tensors of PyTorch"):
            build(name, {})
    assert names() == before
