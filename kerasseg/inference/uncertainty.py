"""How sure a prediction is."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy


@dataclass(frozen=True)
class Uncertainty:
    """Maps of one volume, float32.

    probabilities: (D, H, W, K), the mean of the members
    entropy:       of the mean, in bits: (D, H, W, 1) of the classes of a softmax target, at most
                   log2 K; (D, H, W, K) of each channel of a sigmoid target, at most 1
    variance:      (D, H, W, K) of the members' probabilities, 0.25 at most; 0 of a single member
    """

    probabilities: np.ndarray
    entropy: np.ndarray
    variance: np.ndarray


def uncertainty(members: Iterable[np.ndarray], target: str) -> Uncertainty:
    """Probabilities (D, H, W, K) of each member -> mean, entropy and variance.

    Members are `Predictor.members`, one for each orientation of the test-time augmentation, or
    `Ensemble.members`. Only one of them is in memory at a time (Welford 1962).
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
    """Probabilities (..., K) -> Shannon entropy in bits, (..., 1) of a softmax target, (..., K) of
    each channel of a sigmoid target."""
    if anatomy.ACTIVATIONS[target] == "softmax":
        return _information(probabilities).sum(axis=-1, keepdims=True)
    return _information(probabilities) + _information(1 - probabilities)


def _information(p: np.ndarray) -> np.ndarray:
    """-p log2 p, 0 at 0."""
    logarithm = np.zeros_like(p)
    np.log2(p, out=logarithm, where=p > 0)
    return -p * logarithm
