"""Boundary F1: how well the outlines meet.

Soft Dice.

Generalised Dice.

Soft Jaccard, or intersection over union.

Tversky: Dice with a price of its own for false positives and for false negatives.

Focal Tversky.

Binary and categorical cross-entropy.

Focal cross-entropy.

Cross-entropy of the worst voxels only.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.losses.activation import Activation, log_likelihood
from kerasseg.losses.segmentation_loss import (
    Reduction,
    SegmentationLoss,
    batch_mean,
    class_mean,
    class_sums,
    normalised,
)


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
