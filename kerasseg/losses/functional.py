"""The losses as pure functions on `keras.ops`; every result is one float32 number.

All take masks y_true (B, ..., K) of 0 and 1 (one-hot with softmax). Those made of sums over voxels
take probabilities (B, ..., K), the cross-entropies take logits (B, ..., K) and the activation that
belongs to them. `sample_weight` (B,) weighs the samples: one of weight 2 counts as two of weight 1,
one of weight 0 as none; None weighs all alike. Options have no defaults here; the settings have
them (`kerasseg/config/loss.py`).

    weights:    one number per class, None for equal ones; only their ratios count
    smooth:     voxels added to numerator and denominator
    reduction:  `batch` sums over all voxels of the batch together, `sample` over those of each
                sample, and the loss is the mean over the samples
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

from keras import ops

from kerasseg.losses.activation import Activation, log_likelihood

Reduction = Literal["batch", "sample"]
Weights = Sequence[float] | None

_SMALLEST_POWER_BASE = 1e-7
"""A power below 1 has an infinite gradient at 0; the base is cut off here."""


def dice(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    weights: Weights,
    smooth: float,
    reduction: Reduction,
    squared: bool,
) -> Any:
    """Return soft Dice: the mean over classes of 1 - (2 sum(t p) + s) / (sum(t) + sum(p) + s).

    `squared` has sum(t^2) + sum(p^2) in the denominator, as in Milletari et al. 2016
    (arXiv:1606.04797): a half-sure voxel outside the tumour costs half as much.

    Empty class: without a voxel of truth the loss is sum(p) / (sum(p) + smooth), so 0 for an empty
    prediction, near 1 for some voxels, and its gradient pushes false positives down.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    samples = Samples(reduction, sample_weight)
    overlap = samples.sums(y_true * y_pred)
    true = samples.sums(ops.square(y_true) if squared else y_true)
    predicted = samples.sums(ops.square(y_pred) if squared else y_pred)
    losses = 1.0 - (2.0 * overlap + smooth) / (true + predicted + smooth)
    return _class_mean(samples.mean(losses), weights)


def generalised_dice(
    y_true: Any, y_pred: Any, sample_weight: Any = None, *, smooth: float, reduction: Reduction
) -> Any:
    """Return 1 - (2 sum_c w_c sum(t p) + s) / (sum_c w_c (sum(t) + sum(p)) + s).

    One ratio over all classes, each weighted by 1 / (voxels of truth)^2: Sudre et al. 2017
    (arXiv:1707.03237). Here that weight is divided by the weight of the rarest class present,
    which changes only the meaning of `smooth`: voxels of that class. (The weights as published,
    1e-8 for 10,000 voxels, would vanish beside any usable `smooth`.)

    Empty class: a class without a voxel of truth, whose weight would be infinite, has the weight of
    the rarest class present. Where none is present all have 1, and the loss is
    sum(p) / (sum(p) + smooth), as with `dice`.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    samples = Samples(reduction, sample_weight)
    true, predicted, overlap = map(samples.sums, (y_true, y_pred, y_true * y_pred))
    present = true > 0
    rarest = ops.min(ops.where(present, true, float("inf")), axis=-1, keepdims=True)
    weights = ops.where(present, ops.square(rarest / ops.maximum(true, 1.0)), 1.0)
    numerator = 2.0 * ops.sum(weights * overlap, axis=-1) + smooth
    denominator = ops.sum(weights * (true + predicted), axis=-1) + smooth
    return samples.mean(1.0 - numerator / denominator)


def jaccard(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    weights: Weights,
    smooth: float,
    reduction: Reduction,
) -> Any:
    """Return the mean over classes of 1 - (sum(t p) + s) / (sum(t) + sum(p) - sum(t p) + s).

    Soft intersection over union: Rahman and Wang 2016, "Optimizing intersection-over-union in deep
    neural networks for image segmentation".

    Empty class: as with `dice`, sum(p) / (sum(p) + smooth).
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    samples = Samples(reduction, sample_weight)
    true, predicted, overlap = map(samples.sums, (y_true, y_pred, y_true * y_pred))
    losses = 1.0 - (overlap + smooth) / (true + predicted - overlap + smooth)
    return _class_mean(samples.mean(losses), weights)


def tversky(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    weights: Weights,
    smooth: float,
    reduction: Reduction,
    alpha: float,
    beta: float,
) -> Any:
    """Return the mean over classes of 1 - (TP + s) / (TP + alpha FP + beta FN + s).

    TP = sum(t p), FP = sum((1 - t) p), FN = sum(t (1 - p)). Salehi et al. 2017 (arXiv:1706.05721).
    alpha = beta = 1/2 is `dice` with twice the `smooth`, alpha = beta = 1 is `jaccard`.

    Empty class: without a voxel of truth the loss is alpha sum(p) / (alpha sum(p) + smooth), so 0
    for an empty prediction; with alpha 0 false positives of such a class cost nothing.
    """
    samples = Samples(reduction, sample_weight)
    losses = _tversky_losses(y_true, y_pred, samples, smooth, alpha, beta)
    return _class_mean(samples.mean(losses), weights)


def focal_tversky(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    weights: Weights,
    smooth: float,
    reduction: Reduction,
    alpha: float,
    beta: float,
    gamma: float,
) -> Any:
    """Return the mean over classes of `tversky` to the power of gamma; at least 1e-7^gamma.

    Abraham and Khan 2019 (arXiv:1810.07842), who write the exponent 1 / gamma, with 4/3, and call
    our beta alpha. Below 1 it keeps a large gradient on classes that are nearly right, above 1 on
    those that are not.

    Empty class: the loss of `tversky` to the power of gamma.
    """
    samples = Samples(reduction, sample_weight)
    losses = _tversky_losses(y_true, y_pred, samples, smooth, alpha, beta)
    losses = ops.power(ops.maximum(losses, _SMALLEST_POWER_BASE), gamma)
    return _class_mean(samples.mean(losses), weights)


def _tversky_losses(
    y_true: Any, y_pred: Any, samples: "Samples", smooth: float, alpha: float, beta: float
) -> Any:
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    overlap = samples.sums(y_true * y_pred)
    false_positives = samples.sums((1.0 - y_true) * y_pred)
    false_negatives = samples.sums(y_true * (1.0 - y_pred))
    wrong = alpha * false_positives + beta * false_negatives
    # As 1 - index this could be slightly negative by rounding where nothing is wrong.
    return wrong / (overlap + wrong + smooth)


def boundary(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    weights: Weights,
    smooth: float,
    reduction: Reduction,
    width: int,
    tolerance: int,
) -> Any:
    """Return the mean over classes of 1 - 2 P R / (P + R), with P and R of the outlines.

    The outline of a mask m is maxpool(1 - m) - (1 - m) over `width` voxels: voxels inside that have
    outside nearby. P is the share of the predicted outline within (tolerance - 1) / 2 voxels of the
    true one, R the share of the true one as near the predicted, both with `smooth` voxels added
    above and below. Bokhovkin and Burnaev 2019 (arXiv:1905.07852). Voxels outside the patch do not
    count as outside: a tumour cut by the patch's border has no outline there.

    Empty class: without a voxel of truth R is 1 and P falls with the predicted outline, so the
    loss is 0 for an empty prediction. It is 0 too for one that fills the patch, which has no
    outline: this loss needs `dice` or a cross-entropy beside it.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    samples = Samples(reduction, sample_weight)

    def outline(masks: Any) -> Any:
        return _max_around(1.0 - masks, width) - (1.0 - masks)

    def share_near(line: Any, other: Any) -> Any:
        near = samples.sums(line * _max_around(other, tolerance))
        return (near + smooth) / (samples.sums(line) + smooth)

    true, predicted = outline(y_true), outline(y_pred)
    precision, recall = share_near(predicted, true), share_near(true, predicted)
    losses = 1.0 - 2.0 * precision * recall / (precision + recall)
    return _class_mean(samples.mean(losses), weights)


def _max_around(masks: Any, size: int) -> Any:
    """Return the largest value in a cube of `size` voxels around each voxel."""
    axes = len(masks.shape) - 2
    # One axis after the other gives the same in a seventh of the time (5^3 voxels, on a CPU).
    for axis in range(axes):
        window = tuple(size if i == axis else 1 for i in range(axes))
        masks = ops.max_pool(masks, window, strides=1, padding="same", data_format="channels_last")
    return masks


def cross_entropy(
    y_true: Any, logits: Any, activation: Activation, sample_weight: Any = None, *, weights: Weights
) -> Any:
    """Return the mean over voxels of -log p, p being the probability given to the truth.

    With sigmoid each channel has a p (binary cross-entropy), and the mean is over the channels too,
    weighted by `weights`. With softmax p is that of the voxel's class (categorical), and the mean
    over voxels is weighted by the weight of their class.

    Empty class: with sigmoid its voxels are all background and count as such; with softmax it has
    no voxel in the mean. Where every voxel is of a class with weight 0 the loss is 0.
    """
    log_p, _ = log_likelihood(y_true, logits, activation)
    if weights is None:
        return -_mean(log_p, sample_weight)
    weight = _normalised(weights, y_true.shape[-1])
    if activation == "sigmoid":
        return -ops.sum(weight * _mean(log_p, sample_weight, per_channel=True))
    voxel_weight = ops.sum(ops.cast(y_true, "float32") * weight, axis=-1, keepdims=True)
    if sample_weight is not None:
        voxel_weight *= _like(sample_weight, voxel_weight)
    # The mean before the ratio: a sum of millions of equal numbers loses digits in float32.
    mean_weight = _batch_mean(voxel_weight)
    return -ops.mean(voxel_weight * log_p) / ops.where(mean_weight > 0, mean_weight, 1.0)


def focal(
    y_true: Any,
    logits: Any,
    activation: Activation,
    sample_weight: Any = None,
    *,
    gamma: float,
    alpha: float | Sequence[float] | None,
) -> Any:
    """Return the mean over voxels of -balance (1 - p)^gamma log p, p that of the truth.

    Lin et al. 2017 (arXiv:1708.02002), equations 4 and 5; gamma 0 is plain cross-entropy. With
    sigmoid the balance is `alpha` where the channel holds and 1 - alpha where it does not, one
    number or one per channel. With softmax `alpha` (K,) has the factor of each class, and a single
    number is the factor of all. None: 1.

    Empty class: as with `cross_entropy`, but the factors are not divided by their sum.
    """
    log_p, log_not_p = log_likelihood(y_true, logits, activation)
    losses = -ops.exp(gamma * log_not_p) * log_p
    if alpha is None:
        return _mean(losses, sample_weight)
    channels = y_true.shape[-1]
    factors = list(alpha) if isinstance(alpha, Sequence) else [alpha] * channels
    if len(factors) != channels:
        raise ValueError(f"alpha: {len(factors)} numbers {factors} for {channels} channels")
    y_true, factor = ops.cast(y_true, "float32"), ops.convert_to_tensor(factors, "float32")
    if activation == "sigmoid":
        balance = y_true * factor + (1.0 - y_true) * (1.0 - factor)
    else:
        balance = ops.sum(y_true * factor, axis=-1, keepdims=True)
    return _mean(balance * losses, sample_weight)


def top_k(
    y_true: Any, logits: Any, activation: Activation, sample_weight: Any = None, *, share: float
) -> Any:
    """Return the mean of the largest `share` of the batch's cross-entropies, at least of one.

    With softmax there is one cross-entropy per voxel, with sigmoid one per voxel and channel. Wu et
    al. 2016 (arXiv:1605.06885), there with a threshold on p; a fixed share as in nnU-Net's
    `TopKLoss`. On several devices each of them takes the worst voxels of its part of the batch.

    Empty class: as with `cross_entropy`; its false positives are among the worst.
    """
    log_p, _ = log_likelihood(y_true, logits, activation)
    size = math.prod(ops.shape(log_p))
    if isinstance(size, int):
        count = max(1, int(share * size))
    else:  # the size is a tensor where the shape is known only when the step runs
        count = ops.maximum(1, ops.cast(share * ops.cast(size, "float64"), "int32"))
        count = ops.minimum(count, size)  # a batch may be empty
    if sample_weight is None:
        return ops.mean(ops.top_k(ops.reshape(-log_p, (-1,)), count, sorted=False)[0])
    weight = ops.cast(sample_weight, "float32")
    counted = ops.sum(ops.cast(weight > 0, "float32"))
    weight = weight * counted / ops.maximum(ops.sum(weight), _SMALLEST_POWER_BASE)
    worst = ops.top_k(ops.reshape(-log_p * _like(weight, log_p), (-1,)), count)[0]
    per_sample = ops.cast(size, "float32") / ops.cast(ops.shape(log_p)[0], "float32")
    # A little more, as the product may lie just below the whole number that it stands for.
    count = ops.maximum(1.0, ops.floor(share * counted * per_sample + 1e-4))
    first = ops.cast(ops.cumsum(ops.ones_like(worst)) <= count, "float32")
    return ops.sum(worst * first) / ops.maximum(ops.sum(first), 1.0)


_sum_over_replicas: ContextVar[Callable[[Any], Any] | None] = ContextVar(
    "sum_over_replicas", default=None
)


@contextmanager
def batch_over_replicas(sum_over_replicas: Callable[[Any], Any] | None) -> Iterator[None]:
    """Let `reduction: batch` mean the batch of all replicas, not the part that one of them has.

    Args:
        sum_over_replicas: Adds up a tensor over the replicas, with a gradient; None if there is
            only one replica.
    """
    token = _sum_over_replicas.set(sum_over_replicas)
    try:
        yield
    finally:
        _sum_over_replicas.reset(token)


class Samples(NamedTuple):
    """The samples of a batch, whose sums over voxels are `reduction`s, and their weights (B,)."""

    reduction: Reduction
    weight: Any = None

    def sums(self, masks: Any) -> Any:
        """Return the sums of (B, ..., K) over voxels: (1, K) for `batch`, (B, K) for `sample`."""
        axes = tuple(range(0 if self.reduction == "batch" else 1, len(masks.shape) - 1))
        if self.reduction == "sample":
            return ops.sum(masks, axis=axes)
        if self.weight is not None:
            masks = masks * _like(self.weight, masks)
        sums, over_replicas = ops.sum(masks, axis=axes), _sum_over_replicas.get()
        return ops.expand_dims(over_replicas(sums) if over_replicas else sums, 0)

    def mean(self, losses: Any) -> Any:
        """Return the mean of (1, ...) or (B, ...) over its first axis."""
        if self.reduction == "batch" or self.weight is None:
            return ops.mean(losses, axis=0)
        weight = _like(self.weight, losses)
        total = ops.sum(weight)
        return ops.sum(losses * weight, axis=0) / ops.where(total > 0, total, 1.0)


def _like(sample_weight: Any, values: Any) -> Any:
    """Return weights (B,) as float32 (B, 1, ...), to be multiplied with values (B, ...)."""
    weight = ops.cast(sample_weight, "float32")
    return ops.reshape(weight, (-1, *[1] * (len(values.shape) - 1)))


def _mean(values: Any, sample_weight: Any, *, per_channel: bool = False) -> Any:
    """Return the weighted mean over the samples and voxels of (B, ..., K), or K of them."""
    axes = tuple(range(len(values.shape) - per_channel))
    if sample_weight is None:
        return ops.mean(values, axis=axes)
    return Samples("sample", sample_weight).mean(ops.mean(values, axis=axes[1:]))


def _batch_mean(values: Any) -> Any:
    """Return the mean over (B, ...) of all replicas; not to be differentiated."""
    mean, over_replicas = ops.mean(values), _sum_over_replicas.get()
    if over_replicas is None:
        return mean
    size = ops.cast(ops.shape(values)[0], "float32")
    total = ops.where(size > 0, mean * size, 0.0)  # one replica's part may be empty
    total, size = ops.unstack(over_replicas(ops.stack([total, size])), 2)
    return total / size


def _class_mean(per_class: Any, weights: Weights) -> Any:
    """Return the weighted mean over classes of (K,)."""
    if weights is None:
        return ops.mean(per_class)
    return ops.sum(per_class * _normalised(weights, per_class.shape[0]))


def _normalised(weights: Sequence[float], channels: int) -> Any:
    """Return the class weights (K,) divided by their sum.

    Raises:
        ValueError: There are not as many as channels, one is negative, or all are 0.
    """
    if len(weights) != channels:
        raise ValueError(f"{len(weights)} class weights {list(weights)} for {channels} channels")
    total = math.fsum(weights)
    if not total > 0 or min(weights) < 0:
        raise ValueError(f"class weights {list(weights)}: none may be negative, nor all 0")
    return ops.convert_to_tensor([weight / total for weight in weights], "float32")
