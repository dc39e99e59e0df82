"""Generalised Dice."""

from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_sums
from kerasseg.losses.segmentation_loss import SegmentationLoss


def generalised_dice(
    y_true: Any, y_pred: Any, smooth: float = 1.0, reduction: Reduction = "batch"
) -> Any:
    """1 - (2 sum_c w_c sum(t p) + smooth) / (sum_c w_c (sum(t) + sum(p)) + smooth).

    y_true, y_pred: (B, ..., K), masks and probabilities. One ratio over all classes, each weighted
    by 1 / (voxels of truth)^2: Sudre et al. 2017 (arXiv:1707.03237). Here that weight is divided
    by the one of the rarest class present, which changes nothing but the meaning of `smooth`:
    voxels of that class. (With the weights as published, of 1e-8 for 10,000 voxels, any `smooth`
    worth the name would drown them.)

    Empty class: one without a voxel of truth, whose weight would be infinite, has that of the
    rarest class present. Where none is present all have 1, and the loss is
    sum(p) / (sum(p) + smooth), as with `dice`.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    true, predicted = class_sums(y_true, reduction), class_sums(y_pred, reduction)
    overlap = class_sums(y_true * y_pred, reduction)
    present = true > 0
    rarest = ops.min(ops.where(present, true, float("inf")), axis=-1, keepdims=True)
    weights = ops.where(present, ops.square(rarest / ops.maximum(true, 1.0)), 1.0)
    above = 2.0 * ops.sum(weights * overlap, axis=-1) + smooth
    below = ops.sum(weights * (true + predicted), axis=-1) + smooth
    return ops.mean(1.0 - above / below)


@keras.saving.register_keras_serializable("kerasseg")
class GeneralisedDice(SegmentationLoss):
    """`generalised_dice` of logits or probabilities."""

    def __init__(
        self,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "generalised_dice",
    ) -> None:
        super().__init__(from_logits, activation, name, smooth=smooth, reduction=reduction)

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return generalised_dice(y_true, self.probabilities(y_pred), **self.options)
