"""Settings of the evaluation that do not fit the rest."""

import pytest

from kerasseg.config_file import load_experiment
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
