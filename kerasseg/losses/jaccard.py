"""Soft Jaccard, or intersection over union."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_mean, class_sums
from kerasseg.losses.segmentation_loss import SegmentationLoss


def jaccard(
    y_true: Any,
    y_pred: Any,
    weights: Sequence[float] | None = None,
    smooth: float = 1.0,
    reduction: Reduction = "batch",
) -> Any:
    """1 - (sum(t p) + smooth) / (sum(t) + sum(p) - sum(t p) + smooth) per class, and their mean.

    y_true, y_pred: (B, ..., K), masks and probabilities. `weights` (K,) weigh the classes, `smooth`
    is in voxels. Rahman and Wang 2016, "Optimizing intersection-over-union in deep neural networks
    for image segmentation".

    Empty class: as with `dice`, sum(p) / (sum(p) + smooth).
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    overlap = class_sums(y_true * y_pred, reduction)
    union = class_sums(y_true, reduction) + class_sums(y_pred, reduction) - overlap
    return class_mean(1.0 - (overlap + smooth) / (union + smooth), weights)


@keras.saving.register_keras_serializable("kerasseg")
class Jaccard(SegmentationLoss):
    """`jaccard` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "jaccard",
    ) -> None:
        super().__init__(
            from_logits, activation, name, weights=weights, smooth=smooth, reduction=reduction
        )

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return jaccard(y_true, self.probabilities(y_pred), **self.options)
