"""Section `augment`: how training patches are varied."""

from typing import Literal

from kerasseg.settings.base import Section, setting


class AugmentSettings(Section):
    """Augmentation of training patches; validation patches stay as they are."""

    preset: Literal["none", "light", "classic_2d"] = setting(
        "none",
        "light: flips, brightness. classic_2d (slices only): flips left to right, rotation, "
        "scaling, shift and elastic deformation in one resampling, gamma, contrast, brightness, "
        "noise.",
    )
