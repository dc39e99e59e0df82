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
    own = {str(name): value for name, value in settings.thresholds.items()}
    thresholds = [own.get(name, threshold) for name in anatomy.TARGETS[target]]
    masks = targets.probabilities_to_masks(probabilities, target, thresholds)
    return clean_up(masks, target, spacing, settings)
