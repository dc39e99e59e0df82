"""Soft Dice."""

from typing import Any

from keras import ops


def soft_dice(y_true: Any, y_pred: Any, smooth: float = 1.0) -> Any:
    """Soft Dice loss per class, (K,) float32, over the whole batch together.

    y_true, y_pred: (B, ..., K), truth in {0, 1} and probabilities. Per class
    1 - (2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth); Milletari et al. 2016
    (arXiv:1606.04797) with sums instead of squares.

    Empty class: with sum(t) = 0 the loss is sum(p) / (sum(p) + smooth), so it is 0 for an empty
    prediction and its gradient still pushes false positives down.
    """
    # float16 overflows at 65504, and a 128^3 patch has two million voxels.
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    axes = tuple(range(len(y_pred.shape) - 1))
    overlap = ops.sum(y_true * y_pred, axis=axes)
    total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)
    return 1.0 - (2.0 * overlap + smooth) / (total + smooth)
