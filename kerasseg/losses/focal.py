"""Focal binary cross-entropy."""

from typing import Any

import keras
from keras import ops


def binary_focal(y_true: Any, y_pred: Any, gamma: float = 2.0) -> Any:
    """Mean over voxels and classes of (1 - p_t)^gamma times the binary cross-entropy, float32.

    y_true, y_pred: (B, ..., K), truth in {0, 1} and probabilities. Lin et al. 2017
    (arXiv:1708.02002), equation 4; gamma 0 is plain cross-entropy.
    """
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    return ops.mean(keras.losses.binary_focal_crossentropy(y_true, y_pred, gamma=gamma))
