"""Voxels that two masks share and do not share, and the scores made of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Voxels of a volume: in both masks, only predicted, only true, in neither.

    A score with a denominator of 0 is NaN; `case_metrics` has rules for that.
    """

    hits: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def count(cls, truth: np.ndarray, prediction: np.ndarray, voxels: int) -> "Overlap":
        """Of boolean masks of one shape, which may be cut out of a volume of `voxels`."""
        hits = int(np.count_nonzero(truth & prediction))
        predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
        return cls(hits, predicted - hits, true - hits, voxels - predicted - true + hits)

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.hits, 2 * self.hits + self.false_positives + self.false_negatives)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return _ratio(self.hits, self.hits + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.hits, self.hits + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), the sensitivity."""
        return _ratio(self.hits, self.hits + self.false_negatives)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP) in the whole volume."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)


def _ratio(above: int, below: int) -> float:
    return above / below if below else float("nan")
