"""Runs -> their ensemble, if they agree on what is done to its mean."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from kerasseg.config import Experiment
from kerasseg.config_file import differences
from kerasseg.errors import UserError
from kerasseg.inference.ensemble import Ensemble, Segmenter


class Member(NamedTuple):
    """A run of an ensemble: what it is called, its settings, and what segments."""

    name: str
    experiment: Experiment
    segmenter: Segmenter


def ensemble_of(members: Sequence[Member], combine: Literal["mean", "vote"]) -> Ensemble:
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
