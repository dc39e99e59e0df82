"""What an evaluation found, case by case and in sum.

How often a probability was right: what calibration, ROC and precision-recall need.

Whether a probability of 0.7 is right in seven of ten voxels.

One case with its truth and its prediction.

Which class was taken for which, voxel by voxel.

A stored box put back into its scan.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from kerasseg import anatomy
from kerasseg.evaluation.scores import CaseScore, score_case
from kerasseg.metrics.case_metrics import MetricSettings
from kerasseg.records.schema import StoredCase
from kerasseg.targets import label_to_masks, masks_to_label

BINS = 1000
"""Of width 0.001: thresholds of the curves, and fine enough for a mean probability."""


@dataclass(frozen=True)
class ProbabilityCounts:
    """Voxels of one class by predicted probability: positives and negatives (BINS,) int64.

    Of every voxel, not of a sample, in memory that does not grow; `a + b` is of both.
    """

    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def count(cls, probabilities: np.ndarray, truth: np.ndarray) -> "ProbabilityCounts":
        """Of probabilities 0..1 and a boolean truth of one shape."""
        bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
        truth = truth.ravel()
        bins = bins.ravel()
        positives = np.bincount(bins[truth], minlength=BINS)
        return cls(positives, np.bincount(bins, minlength=BINS) - positives)

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        return ProbabilityCounts(self.positives + other.positives, self.negatives + other.negatives)

    def above(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thresholds (BINS,) falling to 0, and the true and false positives from each one on."""
        thresholds = np.arange(BINS)[::-1] / BINS
        return thresholds, np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])


@dataclass(frozen=True)
class Calibration:
    """Of equally wide bins of probability: mean probability, observed share of positives (NaN in
    an empty bin), voxels; and the expected calibration error."""

    predicted: np.ndarray
    observed: np.ndarray
    voxels: np.ndarray
    error: float


def calibration(counts: ProbabilityCounts, bins: int = 10) -> Calibration:
    """Guo et al. 2017, `On Calibration of Modern Neural Networks`: the error is the mean distance
    of predicted and observed share, each bin weighted by its voxels. Of a mask, which is mostly
    background, it is small; the diagram shows where it is not. NaN without voxels."""
    if BINS % bins:
        raise ValueError(f"bins is {bins}: expected a divisor of {BINS}")
    centres = (np.arange(BINS) + 0.5) / BINS
    every = counts.positives + counts.negatives
    voxels = every.reshape(bins, -1).sum(axis=1)
    with np.errstate(invalid="ignore"):
        predicted = (every * centres).reshape(bins, -1).sum(axis=1) / voxels
        observed = counts.positives.reshape(bins, -1).sum(axis=1) / voxels
    total = voxels.sum()
    gaps = np.nan_to_num(np.abs(predicted - observed)) * voxels
    return Calibration(predicted, observed, voxels, float(gaps.sum() / total) if total else np.nan)


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


def confusion_classes(target: str) -> tuple[str, ...]:
    """The classes that exclude each other: background and what a label can hold."""
    if target == "binary":
        return ("background", "tumour")
    return tuple(anatomy.LABELS.values())


def confusion_matrix(truth: np.ndarray, masks: np.ndarray, target: str) -> np.ndarray:
    """Voxels (true class, predicted class) of labels (D, H, W) and masks (D, H, W, K), as int64.

    Masks become one label per voxel first, as `targets.masks_to_label` does it.
    """
    predicted = masks_to_label(masks, target)
    if target == "binary":
        truth = label_to_masks(truth, "binary")[..., 0]
    number = len(confusion_classes(target))
    pairs = truth.astype(np.int64).ravel() * number + predicted.ravel()
    return np.bincount(pairs, minlength=number**2).reshape(number, number)


@dataclass
class PackedPair:
    """Truth and prediction of a case in a few kB, for the figures that are chosen afterwards."""

    shape: tuple[int, ...]
    truth: bytes
    masks: bytes
    spacing: tuple[float, float, float]

    @classmethod
    def pack(cls, pair: CasePair) -> "PackedPair":
        masks = zlib.compress(np.packbits(pair.masks).tobytes(), 1)
        truth = zlib.compress(np.ascontiguousarray(pair.truth, np.uint8).tobytes(), 1)
        return cls(pair.masks.shape, truth, masks, pair.spacing)

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (D, H, W) and masks (D, H, W, K)."""
        truth = np.frombuffer(zlib.decompress(self.truth), np.uint8).reshape(self.shape[:3])
        bits = np.frombuffer(zlib.decompress(self.masks), np.uint8)
        count = int(np.prod(self.shape))
        return truth, np.unpackbits(bits, count=count).astype(bool).reshape(self.shape)


@dataclass
class Results:
    """Scores of cases in their order, voxels of all cases together, and the masks.

    confusion:     voxels (true class, predicted class) of `confusion_classes`
    probabilities: channel -> `ProbabilityCounts`; empty where only masks are known
    pairs:         case id -> its masks
    """

    target: str
    scores: list[CaseScore] = field(default_factory=list)
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    probabilities: dict[str, ProbabilityCounts] = field(default_factory=dict)
    pairs: dict[str, PackedPair] = field(default_factory=dict)

    def add(self, pair: CasePair, settings: MetricSettings) -> None:
        """Score one case more."""
        score = score_case(
            pair.case_id,
            pair.split,
            pair.truth,
            pair.masks,
            self.target,
            pair.spacing,
            settings,
        )
        self.scores.append(replace(score, patient_id=pair.patient_id, seconds=pair.seconds))
        self._add_confusion(confusion_matrix(pair.truth, pair.masks, self.target))
        self.pairs[pair.case_id] = PackedPair.pack(pair)
        if pair.probabilities is not None:
            inside = np.ones(pair.truth.shape, bool) if pair.inside is None else pair.inside
            truth = label_to_masks(pair.truth[inside], self.target)
            probabilities = pair.probabilities[inside]
            channels = list(anatomy.TARGETS[self.target])
            for name in anatomy.tumour_channels(self.target):
                k = channels.index(name)
                self._add_counts(name, ProbabilityCounts.count(probabilities[:, k], truth[:, k]))

    def extend(self, others: Iterable["Results"]) -> "Results":
        """Take in other cases of the same target, such as those of other folds; returns itself."""
        for other in others:
            self.scores += other.scores
            self.pairs |= other.pairs
            self._add_confusion(other.confusion)
            for name, counts in other.probabilities.items():
                self._add_counts(name, counts)
        return self

    def _add_confusion(self, matrix: np.ndarray) -> None:
        number = len(confusion_classes(self.target))
        if not self.confusion.size:
            self.confusion = np.zeros((number, number), np.int64)
        self.confusion = self.confusion + matrix

    def _add_counts(self, name: str, counts: ProbabilityCounts) -> None:
        before = self.probabilities.get(name)
        self.probabilities[name] = counts if before is None else before + counts


def whole_volume(
    stored: StoredCase, box: np.ndarray, around: float | list[float] = 0
) -> np.ndarray:
    """(d, h, w, …) of the stored box -> (D, H, W, …) of the scan it was cut from.

    around: the value of the voxels around it, or of each channel of them
    """
    if box.shape[:3] == tuple(stored.full_shape):
        return box
    shape = (*stored.full_shape, *box.shape[3:])
    whole = np.zeros(shape, box.dtype)
    if np.any(around):
        whole[...] = around
    inner = zip(stored.offset, box.shape[:3], strict=True)
    whole[tuple(slice(first, first + size) for first, size in inner)] = box
    return whole
