"""A weighted sum of losses."""

from collections.abc import Sequence
from typing import Any

import keras

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
