"""Tversky: Dice with a price of its own for false positives and for false negatives."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_mean, class_sums
from kerasseg.losses.segmentation_loss import SegmentationLoss


def tversky_losses(
    y_true: Any, y_pred: Any, alpha: float, beta: float, smooth: float, reduction: Reduction
) -> Any:
    """1 - Tversky index per sample and class, (B, K), or (1, K) where `reduction` is batch."""
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    overlap = class_sums(y_true * y_pred, reduction)
    false_positives = class_sums((1.0 - y_true) * y_pred, reduction)
    false_negatives = class_sums(y_true * (1.0 - y_pred), reduction)
    wrong = alpha * false_positives + beta * false_negatives
    # As 1 - index this would be 0 rounded to either side of it where nothing is wrong.
    return wrong / (overlap + wrong + smooth)


def tversky(
    y_true: Any,
    y_pred: Any,
    weights: Sequence[float] | None = None,
    smooth: float = 1.0,
    reduction: Reduction = "batch",
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Any:
    """1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth) per class, and their mean.

    y_true, y_pred: (B, ..., K), masks and probabilities; TP = sum(t p), FP = sum((1 - t) p),
    FN = sum(t (1 - p)). `weights` (K,) weigh the classes, `smooth` is in voxels. Salehi et al. 2017
    (arXiv:1706.05721). alpha = beta = 1/2 is `dice` with twice the `smooth`, alpha = beta = 1 is
    `jaccard`.

    Empty class: without a voxel of truth the loss is alpha sum(p) / (alpha sum(p) + smooth), so 0
    for an empty prediction; with alpha 0 false positives of such a class cost nothing.
    """
    losses = tversky_losses(y_true, y_pred, alpha, beta, smooth, reduction)
    return class_mean(losses, weights)


@keras.saving.register_keras_serializable("kerasseg")
class Tversky(SegmentationLoss):
    """`tversky` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        alpha: float = 0.3,
        beta: float = 0.7,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "tversky",
    ) -> None:
        super().__init__(
            from_logits,
            activation,
            name,
            weights=weights,
            smooth=smooth,
            reduction=reduction,
            alpha=alpha,
            beta=beta,
        )

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return tversky(y_true, self.probabilities(y_pred), **self.options)
