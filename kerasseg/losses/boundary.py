"""Boundary F1: how well the outlines meet."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.overlap import Reduction, class_mean, class_sums
from kerasseg.losses.segmentation_loss import SegmentationLoss


def boundary(
    y_true: Any,
    y_pred: Any,
    weights: Sequence[float] | None = None,
    smooth: float = 1.0,
    reduction: Reduction = "batch",
    width: int = 3,
    tolerance: int = 5,
) -> Any:
    """1 - 2 P R / (P + R) per class, and their mean; P and R of the outlines.

    y_true, y_pred: (B, H, W, K) or (B, D, H, W, K), masks and probabilities. The outline of a mask
    m is maxpool(1 - m) - (1 - m) over `width` voxels: what is inside and has outside nearby. P is
    the share of the predicted outline within (tolerance - 1) / 2 voxels of the true one, R the
    share of the true one as near the predicted, both with `smooth` voxels added above and below.
    `weights` (K,) weigh the classes. Bokhovkin and Burnaev 2019 (arXiv:1905.07852). What is
    outside the patch is no outside: a tumour cut by its border has no outline there.

    Empty class: without a voxel of truth R is 1 and P falls with the predicted outline, so the
    loss is 0 for an empty prediction (and for one that fills the patch, which has no outline: it
    takes `dice` or cross-entropy beside it).
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    true, predicted = _outline(y_true, width), _outline(y_pred, width)
    precision = _share(predicted, _widest(true, tolerance), smooth, reduction)
    recall = _share(true, _widest(predicted, tolerance), smooth, reduction)
    losses = 1.0 - 2.0 * precision * recall / (precision + recall)
    return class_mean(losses, weights)


def _outline(masks: Any, width: int) -> Any:
    return _widest(1.0 - masks, width) - (1.0 - masks)


def _widest(masks: Any, size: int) -> Any:
    """The largest value in a cube of `size` voxels around each."""
    axes = len(masks.shape) - 2
    # One axis after the other gives the same in a seventh of the time (5^3 voxels, on a CPU).
    for axis in range(axes):
        window = tuple(size if i == axis else 1 for i in range(axes))
        masks = ops.max_pool(masks, window, strides=1, padding="same", data_format="channels_last")
    return masks


def _share(outline: Any, near: Any, smooth: float, reduction: Reduction) -> Any:
    hit = class_sums(outline * near, reduction)
    return (hit + smooth) / (class_sums(outline, reduction) + smooth)


@keras.saving.register_keras_serializable("kerasseg")
class Boundary(SegmentationLoss):
    """`boundary` of logits or probabilities."""

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        width: int = 3,
        tolerance: int = 5,
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "boundary",
    ) -> None:
        super().__init__(
            from_logits,
            activation,
            name,
            weights=weights,
            smooth=smooth,
            reduction=reduction,
            width=width,
            tolerance=tolerance,
        )

    def value(self, y_true: Any, y_pred: Any) -> Any:
        return boundary(y_true, self.probabilities(y_pred), **self.options)
