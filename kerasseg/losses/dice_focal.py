"""The weighted sum of soft Dice and focal cross-entropy as a Keras loss."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.dice import soft_dice
from kerasseg.losses.focal import binary_focal


class DiceFocal(keras.losses.Loss):
    """dice_weight x class-weighted mean of soft Dice + focal_weight x focal cross-entropy.

    y_true, y_pred: (B, ..., K). `class_weights` (K,) weigh the classes' Dice and are divided by
    their sum.
    """

    def __init__(
        self,
        dice_weight: float = 0.5,
        class_weights: Sequence[float] = (1.5, 1.0, 2.0),
        smooth: float = 1.0,
        focal_weight: float = 0.5,
        gamma: float = 2.0,
        name: str = "dice_focal",
    ) -> None:
        super().__init__(name=name)
        self.dice_weight = dice_weight
        self.class_weights = tuple(class_weights)
        self.smooth = smooth
        self.focal_weight = focal_weight
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        weights = ops.convert_to_tensor(self.class_weights, "float32")
        dice = ops.sum(weights * soft_dice(y_true, y_pred, self.smooth)) / ops.sum(weights)
        focal = binary_focal(y_true, y_pred, self.gamma)
        return self.dice_weight * dice + self.focal_weight * focal

    def get_config(self) -> dict[str, Any]:
        return {
            "dice_weight": self.dice_weight,
            "class_weights": self.class_weights,
            "smooth": self.smooth,
            "focal_weight": self.focal_weight,
            "gamma": self.gamma,
            "name": self.name,
        }
