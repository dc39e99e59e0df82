"""Binary and categorical cross-entropy."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.activation import Activation, log_likelihood
from kerasseg.losses.overlap import batch_mean, normalised
from kerasseg.losses.segmentation_loss import SegmentationLoss


def cross_entropy(
    y_true: Any,
    logits: Any,
    activation: Activation = "sigmoid",
    weights: Sequence[float] | None = None,
) -> Any:
    """Mean over voxels of -log p, p the probability of what is true.

    y_true, logits: (B, ..., K). Of sigmoid each channel has a p of its own (binary cross-entropy),
    and the mean is over the channels too, weighted by `weights` (K,). Of softmax it is that of the
    voxel's class (categorical), and the mean over voxels is weighted by the weight of their class.
    Only the weights' ratios count.

    Empty class: of sigmoid its voxels are all background and count as such; of softmax it has no
    voxel in the mean. Where every voxel is of a class with weight 0 the loss is 0.
    """
    log_p, _ = log_likelihood(y_true, logits, activation)
    if weights is None:
        return -ops.mean(log_p)
    weight = normalised(weights, log_p.shape[-1] if activation == "sigmoid" else y_true.shape[-1])
    if activation == "sigmoid":
        return -ops.sum(weight * ops.mean(log_p, axis=tuple(range(len(log_p.shape) - 1))))
    voxel_weight = ops.sum(ops.cast(y_true, "float32") * weight, axis=-1, keepdims=True)
    # The mean before the ratio: a sum of millions of equal numbers loses digits in float32.
    mean_weight = batch_mean(voxel_weight)
    return -ops.mean(voxel_weight * log_p) / ops.where(mean_weight > 0, mean_weight, 1.0)


@keras.saving.register_keras_serializable("kerasseg")
class CrossEntropy(SegmentationLoss):
    """`cross_entropy` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "cross_entropy",
    ) -> None:
        super().__init__(from_logits, activation, name, weights=weights)

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return cross_entropy(y_true, self.logits(y_pred), self.activation, **self.options)
