"""Focal Tversky."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_mean
from kerasseg.losses.segmentation_loss import SegmentationLoss
from kerasseg.losses.tversky import tversky_losses

_SMALLEST = 1e-7
"""A power below 1 has an infinite gradient at 0; from here down it is cut off."""


def focal_tversky(
    y_true: Any,
    y_pred: Any,
    weights: Sequence[float] | None = None,
    smooth: float = 1.0,
    reduction: Reduction = "batch",
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
) -> Any:
    """(1 - Tversky index)^gamma per class, and their mean; at least 1e-7^gamma.

    As `tversky`, but for `gamma`: Abraham and Khan 2019 (arXiv:1810.07842), who write the exponent
    1 / gamma, of 4/3, and call our beta alpha. Below 1 it keeps a large gradient on classes that
    are nearly right, above 1 on those that are not.

    Empty class: that of `tversky` to the power of `gamma`.
    """
    losses = tversky_losses(y_true, y_pred, alpha, beta, smooth, reduction)
    return class_mean(ops.power(ops.maximum(losses, _SMALLEST), gamma), weights)


@keras.saving.register_keras_serializable("kerasseg")
class FocalTversky(SegmentationLoss):
    """`focal_tversky` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "focal_tversky",
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
            gamma=gamma,
        )

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return focal_tversky(y_true, self.probabilities(y_pred), **self.options)
