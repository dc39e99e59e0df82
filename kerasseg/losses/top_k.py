"""Cross-entropy of the worst voxels only."""

import math
from typing import Any

import keras
from keras import ops

from kerasseg.losses.activation import Activation, log_likelihood
from kerasseg.losses.segmentation_loss import SegmentationLoss


def top_k(y_true: Any, logits: Any, activation: Activation = "sigmoid", share: float = 0.1) -> Any:
    """Mean of the largest `share` of the batch's cross-entropies, at least of one.

    y_true, logits: (B, ..., K). Of softmax there is one cross-entropy per voxel, of sigmoid one per
    voxel and channel. Wu et al. 2016 (arXiv:1605.06885), there with a threshold on p; a fixed share
    as in nnU-Net's `TopKLoss`. On several devices the batch is the part that each of them sees.

    Empty class: as with `cross_entropy`; its false positives are among the worst.
    """
    log_p, _ = log_likelihood(y_true, logits, activation)
    losses = ops.reshape(-log_p, (-1,))
    size = math.prod(ops.shape(log_p))
    # The size is a tensor where the shape is not known before the step is run.
    known = isinstance(size, int)
    count = max(1, int(share * size)) if known else _count(size, share)
    return ops.mean(ops.top_k(losses, count, sorted=False)[0])


def _count(size: Any, share: float) -> Any:
    count = ops.maximum(1, ops.cast(share * ops.cast(size, "float64"), "int32"))
    return ops.minimum(count, size)  # a batch may be empty


@keras.saving.register_keras_serializable("kerasseg")
class TopK(SegmentationLoss):
    """`top_k` of logits or probabilities."""

    def __init__(
        self,
        share: float = 0.1,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "top_k",
    ) -> None:
        super().__init__(from_logits, activation, name, share=share)

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return top_k(y_true, self.logits(y_pred), self.activation, **self.options)
