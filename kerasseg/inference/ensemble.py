"""Several predictors as one: the mean of their probabilities, or the vote of their masks."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import differences
from kerasseg.errors import UserError
from kerasseg.inference.postprocessing import postprocessed_masks

_MAJORITY = 0.5
"""A voxel belongs to a channel where at least half of the predictors say so."""


class VolumePredictor(Protocol):
    """One of the predictors of an ensemble.

    It is a `Predictor`, which takes normalised volumes, a `LoadedRun`, which takes raw cases, or
    another ensemble.
    """

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> str: ...

    def probabilities(self, scan: Any) -> np.ndarray: ...

    def masks(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray: ...


class Ensemble:
    """The mean of several predictors' probabilities, or the majority of their masks.

    Runs, folds and architectures may be mixed, 2-D and 3-D too. Only one predictor's probabilities
    are in memory at a time. Raises `UserError` if there is no predictor, or they have several
    targets.

    Args:
        predictors: at least one, all of one target.
        combine: "mean" averages probabilities; "vote" takes the share of predictors whose masks
            hold a voxel, each mask with its predictor's thresholds and post-processing.
        threshold: mean from which a voxel belongs to a channel of a sigmoid target; for votes it
            is a half, and a softmax target takes the most probable channel.
        postprocessing: post-processing of the ensemble's masks.
    """

    def __init__(
        self,
        predictors: Sequence[VolumePredictor],
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
        self.prompt = ""
        self.target = first.target
        self.combine = combine
        self.threshold = threshold
        self.postprocessing = postprocessing

    @property
    def name(self) -> str:
        """Return the names of its predictors."""
        return " + ".join(predictor.name for predictor in self.predictors)

    def probabilities(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Return the mean, or the share of votes, (D, H, W, K) float32.

        Args:
            scan: what each predictor takes.
            spacing: voxel size (D, H, W) in mm, for the post-processing of predictors that vote.
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
        """Yield the probabilities, or the votes, (D, H, W, K) of each predictor."""
        for predictor in self.predictors:
            if self.votes:
                yield predictor.masks(scan, spacing)
            else:
                yield predictor.probabilities(scan)

    def masks(self, scan: Any, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Return masks (D, H, W, K) bool.

        Args:
            scan: what each predictor takes.
            spacing: voxel size (D, H, W) in mm; None takes the scan's if it has one, else 1 mm.
        """
        known = getattr(scan, "spacing", (1.0, 1.0, 1.0))
        size: Sequence[float] = known if spacing is None else spacing
        return self.masks_from_probabilities(self.probabilities(scan, spacing), size)

    def masks_from_probabilities(
        self, probabilities: np.ndarray, spacing: Sequence[float]
    ) -> np.ndarray:
        """Make masks (D, H, W, K) of probabilities of that shape; spacing (D, H, W) in mm."""
        return postprocessed_masks(
            probabilities, self.target, spacing, self.mask_threshold, self.postprocessing
        )

    @property
    def votes(self) -> bool:
        """Return whether masks are counted, instead of the mean of probabilities."""
        return self.combine == "vote"

    @property
    def mask_threshold(self) -> float:
        """Return the mean, or the share of votes, from which a voxel belongs to a channel."""
        return _MAJORITY if self.votes else self.threshold


class EnsembleRun(NamedTuple):
    """A finished run in an ensemble: its name, its settings and its predictor."""

    name: str
    experiment: Experiment
    predictor: VolumePredictor


def build_ensemble(runs: Sequence[EnsembleRun], combine: Literal["mean", "vote"]) -> Ensemble:
    """Build the ensemble of finished runs, with the threshold and post-processing they share.

    Votes are of masks, so each run may have its own threshold and post-processing there. Raises
    `UserError` if the runs have several targets, or their mean would be made into masks in
    different ways.
    """
    first = runs[0]
    predictors = [run.predictor for run in runs]
    if combine == "vote":
        return Ensemble(predictors, combine=combine)
    for run in runs[1:]:
        other = differences(first.experiment, run.experiment, ["postprocessing", "evaluation"])
        other = [d for d in other if d.startswith(("postprocessing", "evaluation.threshold"))]
        if other:
            raise UserError(
                f"{first.name} and {run.name} make masks of probabilities in different ways "
                f"({'; '.join(other)}): give these settings for all, such as "
                f"{other[0].split(':')[0]}=…, or let the runs vote."
            )
    return Ensemble(
        predictors,
        combine=combine,
        threshold=first.experiment.evaluation.threshold,
        postprocessing=first.experiment.postprocessing,
    )
