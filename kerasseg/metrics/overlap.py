"""Voxels that two masks share and do not share, the scores of them, and what empty masks score."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kerasseg import anatomy


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the Dice coefficient 2 |T and P| / (|T| + |P|) of two boolean masks of one shape.

    Both empty: 1. One empty: 0 (the rule of BraTS).
    """
    total = int(np.count_nonzero(truth)) + int(np.count_nonzero(prediction))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(truth & prediction)) / total


Empty = Literal["neither", "truth", "prediction", "both"]
"""Which of the two masks has no voxel."""


@dataclass(frozen=True)
class EmptyRule:
    """Values where a mask is empty and a formula would divide by 0 or measure to nothing.

    Overlap is Dice, IoU, precision, recall and normalised surface Dice, 0..1; distance is HD95 and
    ASSD in mm. The rule holds for all of them as soon as one mask is empty, also where a formula
    would still give a number. The defaults are the rule of BraTS up to 2021 for Dice and HD95, as
    nnU-Net's script for BraTS 2020 writes it down, and the same for the others: perfect where
    nothing is rightly found; no overlap, and the diagonal of a BraTS volume, where only one is
    empty. NaN says that a case shall not count: `EmptyRule(*(math.nan,) * 4)`. ValueError: outside
    these ranges.
    """

    overlap_both_empty: float = 1.0
    overlap_one_empty: float = 0.0
    distance_both_empty: float = 0.0
    distance_one_empty: float = anatomy.BRATS_DIAGONAL

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            highest = 1.0 if name.startswith("overlap") else math.inf
            if not (math.isnan(value) or 0.0 <= value <= highest):
                raise ValueError(f"{name} is {value}: expected 0 to {highest:g}, or NaN")

    def overlap(self, empty: Empty) -> float:
        """Return the overlap scores where `empty` is not "neither"."""
        return self.overlap_both_empty if empty == "both" else self.overlap_one_empty

    def distance(self, empty: Empty) -> float:
        """Return the distance in mm where `empty` is not "neither"."""
        return self.distance_both_empty if empty == "both" else self.distance_one_empty


def which_empty(truth: np.ndarray, prediction: np.ndarray) -> Empty:
    """Tell which of two boolean masks is empty."""
    if truth.any():
        return "neither" if prediction.any() else "prediction"
    return "truth" if prediction.any() else "both"


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
        """Count boolean masks of one shape, which may be cut out of a volume of `voxels`."""
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
