"""Several predictors as one."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from kerasseg.errors import UserError
from kerasseg.inference.clean_up.finished_masks import finished_masks
from kerasseg.settings.postprocessing import PostprocessingSettings

_MAJORITY = 0.5
"""A mask holds where half of the predictors or more say so."""


class Segmenter(Protocol):
    """What an ensemble is made of: `Predictor` for normalised volumes, `LoadedRun` for raw cases,
    or another ensemble."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> str: ...

    def probabilities(self, scan: Any) -> np.ndarray: ...

    def masks(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray: ...


class Ensemble:
    """The mean of several predictors' probabilities, or their majority.

    Runs, folds and architectures, 2-D and 3-D together, as long as they have one target; raises
    `UserError` otherwise. Only one predictor's probabilities are in memory at a time.

    combine:        mean: of the probabilities. vote: the share of predictors whose masks hold,
                    each with its own thresholds and post-processing
    threshold:      of the mean; of votes half is enough, and of a softmax target the most
    postprocessing: of the ensemble's masks
    """

    def __init__(
        self,
        predictors: Sequence[Segmenter],
        *,
        combine: Literal["mean", "vote"] = "mean",
        threshold: float = 0.5,
        postprocessing: PostprocessingSettings = PostprocessingSettings(),  # noqa: B008 (frozen)
    ) -> None:
        if not predictors:
            raise UserError("An ensemble needs at least one predictor, found none.")
        first = predictors[0]
        for other in predictors:
            if other.target != first.target:
                raise UserError(
                    f"{first.name} predicts {first.target}, but {other.name} predicts "
                    f"{other.target}: an ensemble needs runs of one model.target."
                )
        self.predictors = tuple(predictors)
        self.target = first.target
        self.combine = combine
        self.threshold = threshold
        self.postprocessing = postprocessing

    @property
    def name(self) -> str:
        """The names of its predictors."""
        return " + ".join(predictor.name for predictor in self.predictors)

    def probabilities(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray:
        """What each predictor takes -> mean or share of votes (D, H, W, K) float32.

        `spacing`, in mm, is for the post-processing of predictors that vote.
        """
        total: np.ndarray | None = None
        for found in self.members(scan, spacing):
            if total is None:
                total = found.astype(np.float32)
            else:
                total += found
        assert total is not None  # there is at least one predictor
        total /= len(self.predictors)
        return total

    def members(self, scan: Any, spacing: Sequence[float] | None = None) -> Iterator[np.ndarray]:
        """Probabilities, or votes, (D, H, W, K) of each predictor: what the mean is of."""
        for predictor in self.predictors:
            if self.combine == "vote":
                yield predictor.masks(scan, spacing)
            else:
                yield predictor.probabilities(scan)

    def masks(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray:
        """What each predictor takes -> masks (D, H, W, K) bool.

        spacing: voxel size (D, H, W) in mm; None: that of the scan if it knows, else 1 mm
        """
        known = getattr(scan, "spacing", (1.0, 1.0, 1.0))
        size: Sequence[float] = known if spacing is None else spacing
        return self.masks_of(self.probabilities(scan, spacing), size)

    def masks_of(self, probabilities: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """What `masks` makes of probabilities (D, H, W, K); spacing (D, H, W) in mm."""
        return finished_masks(
            probabilities, self.target, spacing, self.mask_threshold, self.postprocessing
        )

    @property
    def mask_threshold(self) -> float:
        """From which mean, or share of votes, on a mask holds."""
        return _MAJORITY if self.combine == "vote" else self.threshold
