"""`Intensities`: how one modality of one case is distributed, without its voxels."""

from dataclasses import dataclass

import numpy as np

from kerasseg.records.normalise import EPSILON, z_score

PERCENTILES = (1, 50, 99)
_BINS = 256
_TAILS = (0.1, 99.9)
"""Percentiles between which the histogram lies: one hot voxel would leave all others one bin."""


@dataclass(frozen=True)
class Intensities:
    """The non-zero voxels of one modality.

    count:           how many there are
    mean, deviation: those of the z-score
    percentiles:     values at `PERCENTILES`
    start, width:    lower edge and width of the histogram's bins
    histogram:       (n <= 256,) voxels per bin; those beyond the last bins are left out
    """

    count: int
    mean: float
    deviation: float
    percentiles: tuple[float, float, float]
    start: float
    width: float
    histogram: np.ndarray

    @property
    def end(self) -> float:
        """Upper edge of the last bin."""
        return self.start + self.width * self.histogram.size

    def shares(self, edges: np.ndarray) -> np.ndarray:
        """Share of the voxels between neighbouring `edges`, raw values: (E,) -> (E - 1,)."""
        own_edges = self.start + self.width * np.arange(self.histogram.size + 1)
        below = np.concatenate([[0], np.cumsum(self.histogram)]) / max(self.count, 1)
        return np.diff(np.interp(edges, own_edges, below))

    def normalised_shares(self, edges: np.ndarray) -> np.ndarray:
        """Share of the voxels between neighbouring `edges`, values after the z-score."""
        if self.deviation == 0:
            return (edges[:-1] <= 0) & (edges[1:] > 0) & (self.count > 0)  # all of them are 0
        return self.shares(self.mean + edges * (self.deviation + EPSILON))


def intensities_of(values: np.ndarray) -> Intensities:
    """Measure the voxels (n,) of one modality that are not 0."""
    _, (mean,), (deviation,) = z_score(values[:, np.newaxis])
    if not values.size:
        return Intensities(0, mean, deviation, (0.0, 0.0, 0.0), 0.0, 1.0, np.zeros(1, np.int64))
    low, high, *percentiles = (
        float(v)
        for v in np.percentile(values, (*_TAILS, *PERCENTILES), method="closest_observation")
    )
    if np.array_equal(values, np.rint(values)):
        # Whole numbers must fill bins evenly, or the curve becomes a comb.
        width = float(np.ceil((high - low + 1) / _BINS))
        start, bins = low - 0.5, int(np.ceil((high - low + 1) / width))
    else:
        start, bins = low, _BINS
        width = (high - low) / bins or 1.0
    histogram, _ = np.histogram(values, bins, (start, start + width * bins))
    first, median, last = percentiles
    return Intensities(values.size, mean, deviation, (first, median, last), start, width, histogram)
