"""How certain a prediction is: entropy of the mean, and variance over its members."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy


@dataclass(frozen=True)
class Uncertainty:
    """Maps of one volume, float32.

    Attributes:
        probabilities: the mean (D, H, W, K) of the members.
        entropy: of the mean, in bits, see `entropy`.
        variance: (D, H, W, K) of the members' probabilities, at most 0.25, 0 for a single member.
    """

    probabilities: np.ndarray
    entropy: np.ndarray
    variance: np.ndarray


def uncertainty(members: Iterable[np.ndarray], target: str) -> Uncertainty:
    """Return mean, entropy and variance over the probabilities (D, H, W, K) of the members.

    Members are `Predictor.members`, one for each orientation of the test-time augmentation, or
    `Ensemble.members`. Only one of them is in memory at a time (Welford 1962).

    Raises:
        ValueError: if there is no member.
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

    For a softmax target it is that of the classes, (..., 1), at most log2 K; for a sigmoid target
    that of each channel, (..., K), at most 1.
    """
    if anatomy.ACTIVATIONS[target] == "softmax":
        return _information(probabilities).sum(axis=-1, keepdims=True)
    return _information(probabilities) + _information(1 - probabilities)


def _information(p: np.ndarray) -> np.ndarray:
    """Return -p log2 p, which is 0 at 0."""
    logarithm = np.zeros_like(p)
    np.log2(p, out=logarithm, where=p > 0)
    return -p * logarithm
