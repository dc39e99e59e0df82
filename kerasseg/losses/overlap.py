"""What the losses of the Dice family share: sums of voxels per class, and the mean over classes."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from keras import ops

Reduction = Literal["batch", "sample"]
"""batch: sums over all voxels of the batch together. sample: over those of each sample, and the
loss is the mean over samples."""


def check_reduction(reduction: str) -> Reduction:
    """The reduction, or ValueError."""
    for known in get_args(Reduction):
        if reduction == known:
            return known
    raise ValueError(f"reduction: expected batch or sample, found {reduction!r}")


def class_sums(masks: Any, reduction: Reduction) -> Any:
    """Sums of (B, ..., K) over the voxels: (1, K) of `batch`, (B, K) of `sample`, float32."""
    masks = ops.cast(masks, "float32")
    axes = tuple(range(0 if reduction == "batch" else 1, len(masks.shape) - 1))
    sums = ops.sum(masks, axis=axes)
    return ops.expand_dims(sums, 0) if reduction == "batch" else sums


def class_mean(losses: Any, weights: Sequence[float] | None) -> Any:
    """Mean over samples of (B, K), then the mean over classes weighted by `weights` (K,).

    The weights are divided by their sum, so that only their ratios count; None: all equal. A class
    of weight 0 is left out.
    """
    per_class = ops.mean(losses, axis=0)
    if weights is None:
        return ops.mean(per_class)
    return ops.sum(per_class * normalised(weights, per_class.shape[0]))


def normalised(weights: Sequence[float], channels: int) -> Any:
    """The weights (K,) divided by their sum. ValueError unless there are K, and one above 0."""
    if len(weights) != channels:
        raise ValueError(f"{len(weights)} class weights {list(weights)} for {channels} channels")
    total = math.fsum(weights)
    if not total > 0 or min(weights) < 0:
        raise ValueError(f"class weights {list(weights)}: none may be negative, nor all 0")
    return ops.convert_to_tensor([weight / total for weight in weights], "float32")
