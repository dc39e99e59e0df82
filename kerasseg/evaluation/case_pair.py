"""One case with its truth and its prediction."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CasePair:
    """What an evaluation needs of a case.

    truth:         canonical labels (D, H, W) uint8
    masks:         prediction (D, H, W, K) bool, a mask per channel of the target
    spacing:       mm (D, H, W)
    probabilities: (D, H, W, K) float32, or None where only masks are known
    inside:        (D, H, W) bool: the voxels whose probabilities count, or None for all
    seconds:       that the prediction took; NaN where unknown
    """

    case_id: str
    split: str
    truth: np.ndarray
    masks: np.ndarray
    spacing: tuple[float, float, float]
    patient_id: str = ""
    probabilities: np.ndarray | None = None
    inside: np.ndarray | None = None
    seconds: float = float("nan")
