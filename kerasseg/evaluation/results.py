"""What an evaluation found, case by case and in sum."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from kerasseg import anatomy
from kerasseg.evaluation.case_pair import CasePair
from kerasseg.evaluation.confusion import confusion_classes, confusion_matrix
from kerasseg.evaluation.probability_counts import ProbabilityCounts
from kerasseg.evaluation.scores import CaseScore, score_case
from kerasseg.metrics.case_metrics import MetricSettings
from kerasseg.targets import label_to_masks


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
