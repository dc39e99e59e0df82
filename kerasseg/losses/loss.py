"""The loss that a config asks for.

A weighted sum of losses.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kerasseg import anatomy
from kerasseg.config.loss import LossTerm, OverlapTerm, term_name
from kerasseg.losses.functional import (
    Boundary,
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    GeneralisedDice,
    Jaccard,
    TopK,
    Tversky,
)
from kerasseg.losses.segmentation_loss import SegmentationLoss


@keras.saving.register_keras_serializable("kerasseg")
class WeightedSum(SegmentationLoss):
    """sum_i weights[i] losses[i](y_true, y_pred), one float32 number.

    All losses must take the same predictions: their from_logits and activation must agree.
    """

    def __init__(
        self,
        losses: Sequence[SegmentationLoss],
        weights: Sequence[float],
        name: str = "weighted_sum",
    ) -> None:
        if not losses or len(losses) != len(weights):
            raise ValueError(f"{len(losses)} losses and {len(weights)} weights: expected as many")
        first = losses[0]
        super().__init__(first.from_logits, first.activation, name)
        for loss in losses:
            if (loss.from_logits, loss.activation) != (first.from_logits, first.activation):
                raise ValueError(f"{loss.name} and {first.name} take different predictions")
        self.losses = tuple(losses)
        self.weights = tuple(float(weight) for weight in weights)

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return sum(
            weight * loss.value(y_true, y_pred)
            for weight, loss in zip(self.weights, self.losses, strict=True)
        )

    def get_config(self) -> dict[str, Any]:
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {"losses": losses, "weights": self.weights, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightedSum":
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(losses, config["weights"], config["name"])


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
