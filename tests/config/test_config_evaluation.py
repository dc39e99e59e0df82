"""Settings of the evaluation that do not fit the rest."""

import pytest

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError

SLICES = ("model.dimensions=2", "pipeline.patch_size=[16,16]", "model.features=[4]")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.flips=[width,width]"], "names an axis twice"),
        (["evaluation.flips=[left]"], "allowed: "),
        ([*SLICES, "evaluation.flips=[depth]"], "axis=axial has no depth within its slices"),
        (
            [*SLICES, "pipeline.slices.axis=sagittal", "evaluation.flips=[depth,width]"],
            "axis=sagittal has no width",
        ),
    ],
)
def test_flips_that_cannot_be_are_refused(overrides, words):
    with pytest.raises(UserError, match=r"evaluation.flips") as error:
        load_experiment(None, overrides)
    assert words in str(error.value)


def test_flips_within_the_slices_are_taken():
    options = [*SLICES, "pipeline.slices.axis=coronal", "evaluation.flips=[depth,width]"]
    assert load_experiment(None, options).evaluation.flips == ("depth", "width")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.rotations=[axial,axial]"], "names a plane twice"),
        (["evaluation.rotations=[left]"], "allowed: "),
        (
            ["evaluation.rotations=[axial]", "pipeline.patch_size=[32,64,48]"],
            "the plane of height and width, but the patch has "
            "{'depth': 32, 'height': 64, 'width': 48}",
        ),
        (
            ["evaluation.rotations=[axial,sagittal]", "pipeline.patch_size=[32,64,64]"],
            "sagittal, the plane of depth and height",
        ),
        ([*SLICES, "evaluation.rotations=[coronal]"], "axis=axial can only be turned in their own"),
        (
            [*SLICES, "pipeline.patch_size=[16,32]", "evaluation.rotations=[axial]"],
            "{'height': 16, 'width': 32}",
        ),
    ],
)
def test_turns_that_cannot_be_are_refused(overrides, words):
    with pytest.raises(UserError, match=r"evaluation.rotations") as error:
        load_experiment(None, overrides)
    assert words in str(error.value)


def test_turns_of_square_patches_are_taken():
    options = ["pipeline.patch_size=[32,64,64]", "evaluation.rotations=[axial]"]
    assert load_experiment(None, options).evaluation.rotations == ("axial",)
    options = [*SLICES, "pipeline.slices.axis=sagittal", "evaluation.rotations=[sagittal]"]
    assert load_experiment(None, options).evaluation.rotations == ("sagittal",)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["postprocessing.keep_largest=[WT]"], "keep_largest has WT, but the channels of"),
        (["postprocessing.minimum_volume={tumour: 5}"], "are NCR, ED, ET"),
        (["postprocessing.fill_holes=[ED,ED]"], "names a channel twice"),
        (["model.target=labels", "postprocessing.thresholds={ET: 0.4}"], "no effect"),
        (["postprocessing.thresholds={ET: 1}"], "thresholds"),
        (["postprocessing.minimum_volume={ET: -1}"], "minimum_volume"),
        (["model.target=labels", "postprocessing.fill_holes=[background]"], "fill_holes"),
        (["model.target=binary", "postprocessing.minimum_enhancing=5"], "needs enhancing tumour"),
    ],
)
def test_clean_up_that_does_not_fit_is_refused(overrides, words):
    with pytest.raises(UserError, match=r"postprocessing\.") as error:
        load_experiment(None, overrides)
    assert words in str(error.value)


def test_clean_up_of_the_channels_of_the_target_is_taken():
    options = ["model.target=regions", "postprocessing={thresholds: {ET: 0.4}, keep_largest: [WT]}"]
    settings = load_experiment(None, options).postprocessing
    assert settings.thresholds == {"ET": 0.4} and settings.keep_largest == ("WT",)
