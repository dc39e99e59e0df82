"""The loss that a config asks for."""

from collections.abc import Sequence
from typing import Any

from kerasseg import anatomy
from kerasseg.losses.boundary import Boundary
from kerasseg.losses.cross_entropy import CrossEntropy
from kerasseg.losses.dice import Dice
from kerasseg.losses.focal import Focal
from kerasseg.losses.focal_tversky import FocalTversky
from kerasseg.losses.generalised_dice import GeneralisedDice
from kerasseg.losses.jaccard import Jaccard
from kerasseg.losses.segmentation_loss import SegmentationLoss
from kerasseg.losses.top_k import TopK
from kerasseg.losses.tversky import Tversky
from kerasseg.losses.weighted_sum import WeightedSum
from kerasseg.settings.loss import LossTerm, OverlapTerm, term_name

LOSSES: dict[str, type[SegmentationLoss]] = {
    "dice": Dice,
    "generalised_dice": GeneralisedDice,
    "jaccard": Jaccard,
    "tversky": Tversky,
    "focal_tversky": FocalTversky,
    "cross_entropy": CrossEntropy,
    "focal": Focal,
    "top_k": TopK,
    "boundary": Boundary,
}
"""Name of a loss in the config -> its class, whose arguments are the term's options."""


def build_loss(terms: Sequence[LossTerm], target: str) -> WeightedSum:
    """The weighted sum of `terms` for a row of `anatomy.TARGETS`.

    Called as loss(masks (B, ..., K), logits (B, ..., K)); a float32 number. Terms of weight 0 are
    not computed. The background of target=labels has the weight 0 in a mean over classes whose
    weights do not name it, and of one focal alpha 1 - alpha.
    """
    losses, weights = [], []
    for term in terms:
        name = str(term_name(term))
        options = term.model_dump()
        weight = options.pop(name)
        if weight > 0:
            options = _of_channels(term, options, target)
            activation = anatomy.ACTIVATIONS[target]
            losses.append(LOSSES[name](**options, from_logits=True, activation=activation))
            weights.append(weight)
    return WeightedSum(losses, weights, name="loss")


def _of_channels(term: LossTerm, options: dict[str, Any], target: str) -> dict[str, Any]:
    """The options, with one number per channel where the target has a background."""
    channels, tumour = anatomy.TARGETS[target], anatomy.tumour_channels(target)
    if len(channels) == len(tumour):
        return options
    alpha = options.get("alpha")
    if isinstance(term, OverlapTerm):
        weights = options["weights"] or (1.0,) * len(tumour)
        if len(weights) == len(tumour):
            of_tumour = dict(zip(tumour, weights, strict=True))
            options["weights"] = tuple(of_tumour.get(name, 0.0) for name in channels)
    elif isinstance(alpha, float | int):
        options["alpha"] = tuple(alpha if name in tumour else 1 - alpha for name in channels)
    return options
