"""Soft Dice."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_mean, class_sums
from kerasseg.losses.segmentation_loss import SegmentationLoss


def dice(
    y_true: Any,
    y_pred: Any,
    weights: Sequence[float] | None = None,
    smooth: float = 1.0,
    reduction: Reduction = "batch",
    squared: bool = False,
) -> Any:
    """1 - (2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth) per class, and their mean.

    y_true, y_pred: (B, ..., K), masks and probabilities. `weights` (K,) weigh the classes, `smooth`
    is in voxels. `squared` has sum(t^2) + sum(p^2) below, as Milletari et al. 2016
    (arXiv:1606.04797) have it: a half-sure voxel outside the tumour costs half as much.

    Empty class: without a voxel of truth the loss is sum(p) / (sum(p) + smooth), so 0 for an empty
    prediction, near 1 for some voxels, and its gradient pushes false positives down.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    overlap = class_sums(y_true * y_pred, reduction)
    true = class_sums(ops.square(y_true) if squared else y_true, reduction)
    predicted = class_sums(ops.square(y_pred) if squared else y_pred, reduction)
    return class_mean(1.0 - (2.0 * overlap + smooth) / (true + predicted + smooth), weights)


@keras.saving.register_keras_serializable("kerasseg")
class Dice(SegmentationLoss):
    """`dice` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        squared: bool = False,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "dice",
    ) -> None:
        super().__init__(
            from_logits,
            activation,
            name,
            weights=weights,
            smooth=smooth,
            reduction=reduction,
            squared=squared,
        )

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return dice(y_true, self.probabilities(y_pred), **self.options)
