"""The uncertainty of a prediction: entropy, and variance over the members of an ensemble."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy


@dataclass(frozen=True)
class Uncertainty:
    """Maps of one volume, float32.

    Attributes:
        probabilities: mean of the members (D, H, W, K).
        entropy: entropy of the mean in bits: (D, H, W, 1) and at most log2 K for a softmax target,
            (D, H, W, K) and at most 1 for a sigmoid target.
        variance: variance of the members' probabilities (D, H, W, K), at most 0.25; a single member
            has 0.
    """

    probabilities: np.ndarray
    entropy: np.ndarray
    variance: np.ndarray


def uncertainty(members: Iterable[np.ndarray], target: str) -> Uncertainty:
    """Compute mean, entropy and variance with one member in memory at a time (Welford 1962).

    Raises `ValueError` if there is no member.

    Args:
        members: probabilities (D, H, W, K) of each member: `Predictor.members`, one for each
            orientation of the test-time augmentation, or `Ensemble.members`.
        target: a key of `anatomy.TARGETS`, whose channels the K are.
    """
    mean = squares = None
    count = 0
    for member in members:
        count += 1
        if mean is None or squares is None:
            mean, squares = member.astype(np.float32), np.zeros(member.shape, np.float32)
            continue
        for index, plane in enumerate(member):
            before = plane - mean[index]
            mean[index] += before / count
            squares[index] += before * (plane - mean[index])
    if mean is None or squares is None:
        raise ValueError("uncertainty needs at least one member, found none")
    squares /= count
    return Uncertainty(mean, entropy(mean, target), squares)


def entropy(probabilities: np.ndarray, target: str) -> np.ndarray:
    """Return the Shannon entropy in bits of probabilities (..., K).

    Its shape is (..., 1) for a softmax target, and (..., K) for a sigmoid target, whose channels do
    not exclude each other.
    """
    if anatomy.ACTIVATIONS[target] == "softmax":
        return _information(probabilities).sum(axis=-1, keepdims=True)
    return _information(probabilities) + _information(1 - probabilities)


def _information(p: np.ndarray) -> np.ndarray:
    """Return -p log2 p, which is 0 at 0."""
    logarithm = np.zeros_like(p)
    np.log2(p, out=logarithm, where=p > 0)
    return -p * logarithm
