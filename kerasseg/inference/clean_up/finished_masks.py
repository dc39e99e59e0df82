"""From the probabilities of a whole volume to its masks."""

from collections.abc import Sequence

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.inference.clean_up.clean_up import clean_up
from kerasseg.settings.postprocessing import PostprocessingSettings


def finished_masks(
    probabilities: np.ndarray,
    target: str,
    spacing: Sequence[float],
    threshold: float,
    settings: PostprocessingSettings,
) -> np.ndarray:
    """Probabilities (D, H, W, K) -> masks (D, H, W, K) bool, cleaned up.

    threshold: of the channels that have none in `settings.thresholds`
    spacing:   voxel size (D, H, W) in mm
    """
    thresholds = channel_thresholds(target, threshold, settings)
    masks = targets.probabilities_to_masks(probabilities, target, thresholds)
    return clean_up(masks, target, spacing, settings)


def channel_thresholds(
    target: str, threshold: float, settings: PostprocessingSettings
) -> list[float]:
    """Of each channel its own of `settings.thresholds`, or `threshold`."""
    own = {str(name): value for name, value in settings.thresholds.items()}
    return [own.get(name, threshold) for name in anatomy.TARGETS[target]]
