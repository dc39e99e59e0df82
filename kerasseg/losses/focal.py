"""Focal cross-entropy."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.activation import Activation, log_likelihood
from kerasseg.losses.segmentation_loss import SegmentationLoss


def focal(
    y_true: Any,
    logits: Any,
    activation: Activation = "sigmoid",
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
) -> Any:
    """Mean over voxels of -balance (1 - p)^gamma log p, p the probability of what is true.

    y_true, logits: (B, ..., K). Lin et al. 2017 (arXiv:1708.02002), equations 4 and 5; gamma 0 is
    plain cross-entropy. Of sigmoid the balance is `alpha` where the channel holds and 1 - alpha
    where it does not, one number or one per channel. Of softmax `alpha` (K,) has the factor of
    each class, and one number is the factor of all. None: 1.

    Empty class: as with `cross_entropy`, but the factors are not divided by their sum.
    """
    log_p, log_not_p = log_likelihood(y_true, logits, activation)
    losses = -ops.exp(gamma * log_not_p) * log_p
    if alpha is None:
        return ops.mean(losses)
    channels = y_true.shape[-1]
    factors = (
        [float(a) for a in alpha] if isinstance(alpha, Sequence) else [float(alpha)] * channels
    )
    if len(factors) != channels:
        raise ValueError(f"alpha: {len(factors)} numbers {factors} for {channels} channels")
    y_true, factor = ops.cast(y_true, "float32"), ops.convert_to_tensor(factors, "float32")
    if activation == "sigmoid":
        balance = y_true * factor + (1.0 - y_true) * (1.0 - factor)
    else:
        balance = ops.sum(y_true * factor, axis=-1, keepdims=True)
    return ops.mean(balance * losses)


@keras.saving.register_keras_serializable("kerasseg")
class Focal(SegmentationLoss):
    """`focal` of logits or probabilities."""

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "focal",
    ) -> None:
        super().__init__(from_logits, activation, name, gamma=gamma, alpha=alpha)

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return focal(y_true, self.logits(y_pred), self.activation, **self.options)
