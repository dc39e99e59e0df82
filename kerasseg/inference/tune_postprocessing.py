"""Which post-processing pays, found on validation cases.

Post-processing that was tuned for a run, kept in its folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.postprocessing import postprocessed_masks
from kerasseg.metrics.overlap import dice

THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7)
MINIMUM_VOLUMES: Final = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""In mm^3."""
MINIMUM_ENHANCING: Final = (20.0, 50.0, 100.0, 200.0, 500.0)
"""In mm^3."""
_ROUNDING: Final = 1e-6
"""A Dice higher by less than this is not a gain."""


@dataclass(frozen=True)
class TuningCase:
    """A validation case: probabilities (D, H, W, K), canonical label (D, H, W), spacing in mm."""

    probabilities: np.ndarray
    label: np.ndarray
    spacing: Sequence[float]


def tune_postprocessing(
    cases: Sequence[TuningCase], target: str, threshold: float = 0.5
) -> PostprocessingSettings:
    """The settings with the best mean Dice of `cases`, found greedily; off where nothing is gained.

    One operation after the other, of each channel by itself: the threshold (of `threshold` and
    `THRESHOLDS`; not of a softmax target), the smallest component, the largest alone, holes; at
    last the rule for enhancing tumour. Each takes the value of its grid by which the Dice, mean
    over the cases and over all channels but the background, is highest; of equals the first, which
    is off. What was chosen before stays.

    Choose on cases that were not trained on, and report on others still. `cases` is gone through
    once for every value, so it may read each case when asked for it.
    """
    if not len(cases):
        raise ValueError("tune_postprocessing needs at least one case, found none")
    best = PostprocessingSettings()
    best_score = mean_dice(cases, target, threshold, best)
    for steps in _steps(target):
        here = best
        for name, channel, value in steps:
            candidate = _with(best, name, channel, value)
            score = mean_dice(cases, target, threshold, candidate)
            if score > best_score + _ROUNDING:
                here, best_score = candidate, score
        best = here
    return best


def _steps(target: str) -> Iterator[list[tuple[str, str, Any]]]:
    """What is chosen at once: setting, channel and value of every candidate."""
    channels = anatomy.tumour_channels(target)
    grids: dict[str, tuple[Any, ...]] = {
        "thresholds": () if anatomy.ACTIVATIONS[target] == "softmax" else THRESHOLDS,
        "minimum_volume": MINIMUM_VOLUMES,
        "keep_largest": (True,),
        "fill_holes": (True,),
    }
    for name, values in grids.items():
        for channel in channels:
            yield [(name, channel, value) for value in values]
    if "ET" in channels:
        yield [("minimum_enhancing", "ET", value) for value in MINIMUM_ENHANCING]


def _with(
    settings: PostprocessingSettings, name: str, channel: str, value: Any
) -> PostprocessingSettings:
    before = getattr(settings, name)
    after = value
    if isinstance(before, dict):
        after = before | {channel: value}
    elif isinstance(before, tuple):
        after = (*before, channel)
    return settings.model_copy(update={name: after})


def mean_dice(
    cases: Sequence[TuningCase], target: str, threshold: float, settings: PostprocessingSettings
) -> float:
    """Over the cases and all channels but the background, of masks made by `settings`."""
    names = list(anatomy.TARGETS[target])
    channels = [names.index(name) for name in anatomy.tumour_channels(target)]
    scores = []
    for case in cases:
        truth = targets.label_to_masks(case.label, target)
        found = postprocessed_masks(case.probabilities, target, case.spacing, threshold, settings)
        scores.append([dice(truth[..., i], found[..., i]) for i in channels])
    return float(np.mean(scores))
