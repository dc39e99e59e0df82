"""Conversions between logits and probabilities, and the log-likelihood of a cross-entropy.

All results are float32: float16 overflows at 65504, and a patch of 128^3 has two million voxels to
sum over.
"""

from typing import Any, Literal

from keras import ops

Activation = Literal["sigmoid", "softmax"]
"""sigmoid: channels are independent. softmax: exactly one channel holds at each voxel."""

_SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logarithm, as Keras does."""

_HIDDEN = 1e9
"""Subtracted from a logit, it removes the channel from a softmax; far above any float16 logit."""


def probabilities(logits: Any, activation: Activation) -> Any:
    """Return the probabilities (B, ..., K) of logits (B, ..., K)."""
    logits = ops.cast(logits, "float32")
    return ops.sigmoid(logits) if activation == "sigmoid" else ops.softmax(logits, axis=-1)


def logits_of(probability: Any, activation: Activation) -> Any:
    """Return logits (B, ..., K) whose `probabilities` are `probability`.

    Probabilities within 1e-7 of 0 or 1 are moved to that distance. With softmax the probabilities
    of a voxel should have the sum 1; otherwise they are scaled to it.
    """
    clipped = ops.clip(ops.cast(probability, "float32"), _SMALLEST, 1.0 - _SMALLEST)
    if activation == "softmax":
        return ops.log(clipped)
    return ops.log(clipped) - ops.log1p(-clipped)


def log_likelihood(y_true: Any, logits: Any, activation: Activation) -> tuple[Any, Any]:
    """Return log p and log (1 - p), p being the probability that the logits give to the truth.

    Neither is the logarithm of a rounded p: p = 1 - 1e-20 has the log (1 - p) of -46, so powers of
    1 - p have a gradient there. Returns two tensors, (B, ..., K) with sigmoid and (B, ..., 1) with
    softmax.

    Args:
        y_true: Masks (B, ..., K).
        logits: Logits (B, ..., K).
        activation: With sigmoid each channel has a p, with softmax each voxel.
    """
    y_true, logits = ops.cast(y_true, "float32"), ops.cast(logits, "float32")
    if activation == "sigmoid":
        towards_truth = (2.0 * y_true - 1.0) * logits
        return ops.log_sigmoid(towards_truth), ops.log_sigmoid(-towards_truth)
    true = ops.sum(y_true * ops.log_softmax(logits, axis=-1), axis=-1, keepdims=True)
    others = ops.logsumexp(logits - _HIDDEN * y_true, axis=-1, keepdims=True)
    return true, others - ops.logsumexp(logits, axis=-1, keepdims=True)
