"""Dice of single slices, which is not Dice of volumes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SlicewiseDice:
    """Sum of the Dice of slices, and how many slices there were; `a + b` is of both."""

    total: float = 0.0
    slices: int = 0

    @property
    def mean(self) -> float:
        """Over the slices; NaN without any."""
        return self.total / self.slices if self.slices else float("nan")

    def __add__(self, other: "SlicewiseDice") -> "SlicewiseDice":
        return SlicewiseDice(self.total + other.total, self.slices + other.slices)

    @classmethod
    def measure(cls, truth: np.ndarray, prediction: np.ndarray, axis: int = 0) -> "SlicewiseDice":
        """Of two boolean masks (D, H, W), slice by slice along `axis`.

        Slices that are empty in both are left out: counted as 1, they would raise the mean by
        nothing but the length of the scan. 2-D papers that count them report higher numbers.
        """
        others = tuple(a for a in range(truth.ndim) if a != axis)
        hits = np.count_nonzero(truth & prediction, axis=others)
        both = np.count_nonzero(truth, axis=others) + np.count_nonzero(prediction, axis=others)
        counted = both > 0
        dice = 2 * hits[counted] / both[counted]
        return cls(float(dice.sum()), int(counted.sum()))
