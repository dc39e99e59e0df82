"""Several predictors as one.

Runs -> their ensemble, if they agree on what is done to its mean.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import differences
from kerasseg.errors import UserError
from kerasseg.inference.postprocessing import postprocessed_masks

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
            if self.votes:
                yield predictor.masks(scan, spacing)
            else:
                yield predictor.probabilities(scan)

    def masks(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray:
        """What each predictor takes -> masks (D, H, W, K) bool.

        spacing: voxel size (D, H, W) in mm; None: that of the scan if it knows, else 1 mm
        """
        known = getattr(scan, "spacing", (1.0, 1.0, 1.0))
        size: Sequence[float] = known if spacing is None else spacing
        return self.masks_from_probabilities(self.probabilities(scan, spacing), size)

    def masks_from_probabilities(
        self, probabilities: np.ndarray, spacing: Sequence[float]
    ) -> np.ndarray:
        """What `masks` makes of probabilities (D, H, W, K); spacing (D, H, W) in mm."""
        return postprocessed_masks(
            probabilities, self.target, spacing, self.mask_threshold, self.postprocessing
        )

    @property
    def votes(self) -> bool:
        """Return whether masks are counted, instead of the mean of probabilities."""
        return self.combine == "vote"

    @property
    def mask_threshold(self) -> float:
        """Return the mean, or the share of votes, from which on a mask holds."""
        return _MAJORITY if self.votes else self.threshold


class Member(NamedTuple):
    """A run of an ensemble: what it is called, its settings, and what segments."""

    name: str
    experiment: Experiment
    segmenter: Segmenter


def build_ensemble(members: Sequence[Member], combine: Literal["mean", "vote"]) -> Ensemble:
    """The ensemble of finished runs, with the threshold and the post-processing that they share.

    Raises `UserError` for runs of several targets, and for runs whose mean would be made into masks
    in different ways; votes are of masks, so there each may have its own.
    """
    first = members[0]
    segmenters = [member.segmenter for member in members]
    if combine == "vote":
        return Ensemble(segmenters, combine=combine)
    for member in members[1:]:
        other = differences(first.experiment, member.experiment, ["postprocessing", "evaluation"])
        other = [d for d in other if d.startswith(("postprocessing", "evaluation.threshold"))]
        if other:
            raise UserError(
                f"{first.name} and {member.name} make masks of probabilities in different ways "
                f"({'; '.join(other)}): give these settings for all, such as "
                f"{other[0].split(':')[0]}=…, or let the runs vote."
            )
    return Ensemble(
        segmenters,
        combine=combine,
        threshold=first.experiment.evaluation.threshold,
        postprocessing=first.experiment.postprocessing,
    )
