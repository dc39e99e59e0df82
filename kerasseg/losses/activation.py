"""From logits to probabilities and back, and the log-likelihood that cross-entropies are made of.

Everything is float32 whatever comes in: float16 overflows at 65504, and a patch of 128^3 has two
million voxels to sum over.
"""

from typing import Any, Literal, get_args

from keras import ops

Activation = Literal["sigmoid", "softmax"]
"""sigmoid: channels are independent. softmax: exactly one channel holds at each voxel."""

_SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logarithm, as Keras does."""

_HIDDEN = 1e9
"""Taken off a logit, leaves nothing of it in a softmax; far above any logit of float16."""


def check_activation(activation: str) -> Activation:
    """The activation, or ValueError."""
    for known in get_args(Activation):
        if activation == known:
            return known
    raise ValueError(f"activation: expected sigmoid or softmax, found {activation!r}")


def probabilities(logits: Any, activation: Activation) -> Any:
    """Probabilities (B, ..., K) of logits (B, ..., K)."""
    logits = ops.cast(logits, "float32")
    return ops.sigmoid(logits) if activation == "sigmoid" else ops.softmax(logits, axis=-1)


def logits_of(probability: Any, activation: Activation) -> Any:
    """Logits whose `probabilities` are (B, ..., K), those within 1e-7 of 0 and 1 moved there.

    Of softmax the probabilities of a voxel should have the sum 1; if not, they are scaled to it.
    """
    clipped = ops.clip(ops.cast(probability, "float32"), _SMALLEST, 1.0 - _SMALLEST)
    if activation == "softmax":
        return ops.log(clipped)
    return ops.log(clipped) - ops.log1p(-clipped)


def log_likelihood(y_true: Any, logits: Any, activation: Activation) -> tuple[Any, Any]:
    """log p and log (1 - p), p the probability that the logits give to what is true.

    y_true, logits: (B, ..., K). Of sigmoid both are (B, ..., K), one p per channel; of softmax
    (B, ..., 1), the p of the voxel's class. Neither is the logarithm of a rounded p: p = 1 - 1e-20
    has the log (1 - p) of -46, so powers of 1 - p have a gradient there.
    """
    y_true, logits = ops.cast(y_true, "float32"), ops.cast(logits, "float32")
    if activation == "sigmoid":
        towards_truth = (2.0 * y_true - 1.0) * logits
        return ops.log_sigmoid(towards_truth), ops.log_sigmoid(-towards_truth)
    true = ops.sum(y_true * ops.log_softmax(logits, axis=-1), axis=-1, keepdims=True)
    others = ops.logsumexp(logits - _HIDDEN * y_true, axis=-1, keepdims=True)
    return true, others - ops.logsumexp(logits, axis=-1, keepdims=True)
