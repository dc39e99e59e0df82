"""The results of an evaluation, case by case and summed up over all cases."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.scores import CaseScore, metric_settings, score_case
from kerasseg.evaluation.statistics import Means, summarise
from kerasseg.metrics.calibration import ProbabilityCounts
from kerasseg.records.schema import StoredCase
from kerasseg.targets import label_to_masks, masks_to_label

Counts = dict[str, ProbabilityCounts]
"""Channel -> its voxels by probability."""


@dataclass(frozen=True)
class CasePair:
    """The true and the predicted segmentation of a whole scan.

    Attributes:
        split: side of the split, or where the case comes from.
        truth: canonical labels (D, H, W) uint8.
        masks: predicted masks (D, H, W, K) bool, one per channel of the target.
        spacing: voxel size (D, H, W) in mm.
        patient_id: "" where it is not known.
        counts: voxels by probability; empty where only masks are known.
        seconds: time that the prediction took; NaN where it is not known.
    """

    case_id: str
    split: str
    truth: np.ndarray
    masks: np.ndarray
    spacing: tuple[float, float, float]
    patient_id: str = ""
    counts: Mapping[str, ProbabilityCounts] = field(default_factory=dict)
    seconds: float = float("nan")


@dataclass(frozen=True)
class SegmentedCase:
    """A case of a record store after its prediction, in the box that the store holds of the scan.

    Attributes:
        stored: the record, whose image and label have shape (d, h, w, C) and (d, h, w).
        target: what was predicted, a key of `anatomy.TARGETS`.
        probabilities: (d, h, w, K) float32.
        masks: (d, h, w, K) bool, after post-processing.
        seconds: time that the network and its windows took.
    """

    split: str
    stored: StoredCase
    target: str
    probabilities: np.ndarray
    masks: np.ndarray
    seconds: float

    @property
    def label(self) -> np.ndarray:
        """Return the true labels (d, h, w)."""
        assert self.stored.case.label is not None  # a store holds labelled cases only
        return self.stored.case.label

    def whole_scan(self) -> CasePair:
        """Put the box back into its scan, as metrics are those of the whole scan.

        Probabilities count in the voxels of the brain: air would only make a calibration look
        good.
        """
        case = self.stored.case
        inside = (case.image != self.stored.background).any(axis=-1) | (self.label > 0)
        return CasePair(
            case_id=case.case_id,
            split=self.split,
            truth=whole_volume(self.stored, self.label),
            masks=whole_volume(self.stored, self.masks),
            spacing=case.spacing,
            patient_id=case.patient_id,
            counts=count_probabilities(self.probabilities[inside], self.label[inside], self.target),
            seconds=self.seconds,
        )


def count_probabilities(probabilities: np.ndarray, label: np.ndarray, target: str) -> Counts:
    """Count the voxels of each channel but the background by their probability.

    Args:
        probabilities: (voxels, K), from 0 to 1.
        label: canonical labels (voxels,).
        target: a key of `anatomy.TARGETS`, whose channels the K are.
    """
    truth = label_to_masks(label, target)
    channels = list(anatomy.TARGETS[target])
    return {
        name: ProbabilityCounts.count(
            probabilities[:, channels.index(name)], truth[:, channels.index(name)]
        )
        for name in anatomy.tumour_channels(target)
    }


def confusion_classes(target: str) -> tuple[str, ...]:
    """Return the classes that exclude each other: the background and the labels."""
    if target == "binary":
        return ("background", "tumour")
    return tuple(anatomy.LABELS.values())


def confusion_matrix(truth: np.ndarray, masks: np.ndarray, target: str) -> np.ndarray:
    """Count voxels by true class (rows) and predicted class (columns), as int64.

    Args:
        truth: canonical labels (D, H, W).
        masks: predicted masks (D, H, W, K), which `targets.masks_to_label` makes into one label
            per voxel.
        target: a key of `anatomy.TARGETS`.
    """
    predicted = masks_to_label(masks, target)
    if target == "binary":
        truth = label_to_masks(truth, "binary")[..., 0]
    number = len(confusion_classes(target))
    pairs = truth.astype(np.int64).ravel() * number + predicted.ravel()
    return np.bincount(pairs, minlength=number**2).reshape(number, number)


@dataclass(frozen=True)
class PackedPair:
    """The truth and the prediction of a case in a few kB, for figures that are chosen later."""

    shape: tuple[int, ...]
    truth: bytes
    masks: bytes
    spacing: tuple[float, float, float]

    @classmethod
    def pack(cls, pair: CasePair) -> "PackedPair":
        """Compress truth and masks."""
        masks = zlib.compress(np.packbits(pair.masks).tobytes(), 1)
        truth = zlib.compress(np.ascontiguousarray(pair.truth, np.uint8).tobytes(), 1)
        return cls(pair.masks.shape, truth, masks, pair.spacing)

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (D, H, W) and masks (D, H, W, K)."""
        truth = np.frombuffer(zlib.decompress(self.truth), np.uint8).reshape(self.shape[:3])
        bits = np.frombuffer(zlib.decompress(self.masks), np.uint8)
        count = int(np.prod(self.shape))
        return truth, np.unpackbits(bits, count=count).astype(bool).reshape(self.shape)


@dataclass
class Results:
    """Scores of cases in their order, voxels of all cases together, and the masks.

    Attributes:
        target: what was predicted, a key of `anatomy.TARGETS`.
        settings: section `metrics` of the config, by which cases are scored.
        prompt: what the network was told of each scan, in words; empty where it takes nothing.
        scores: the scores of each case.
        confusion: voxels (true class, predicted class) of `confusion_classes`.
        probabilities: voxels of each channel by probability; empty where only masks are known.
        pairs: case id -> its masks.
    """

    target: str
    settings: MetricsSection = field(default_factory=MetricsSection)
    prompt: str = ""
    scores: list[CaseScore] = field(default_factory=list)
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    probabilities: Counts = field(default_factory=dict)
    pairs: dict[str, PackedPair] = field(default_factory=dict)
    _means: Means | None = field(default=None, repr=False)

    def means(self) -> Means:
        """Return the mean of each class and metric with its interval; it is computed once."""
        if self._means is None:
            self._means = summarise(self.scores, self.settings)
        return self._means

    def add(self, pair: CasePair) -> None:
        """Score one more case."""
        score = score_case(
            pair.case_id,
            pair.split,
            pair.truth,
            pair.masks,
            self.target,
            pair.spacing,
            metric_settings(self.settings),
        )
        self.scores.append(replace(score, patient_id=pair.patient_id, seconds=pair.seconds))
        self.pairs[pair.case_id] = PackedPair.pack(pair)
        self._add_counts(confusion_matrix(pair.truth, pair.masks, self.target), pair.counts)

    def extend(self, others: Iterable["Results"]) -> "Results":
        """Take in other cases of the same target, such as those of other folds; returns itself."""
        for other in others:
            self.scores += other.scores
            self.pairs |= other.pairs
            self._add_counts(other.confusion, other.probabilities)
        return self

    def _add_counts(self, confusion: np.ndarray, counts: Mapping[str, ProbabilityCounts]) -> None:
        self._means = None
        self.confusion = self.confusion + confusion if self.confusion.size else confusion
        for name, voxels in counts.items():
            before = self.probabilities.get(name)
            self.probabilities[name] = voxels if before is None else before + voxels


@dataclass(frozen=True)
class Provenance:
    """Where the cases and the predictions of a page come from, and how it is made again.

    Attributes:
        title: title of the page.
        subtitle: what was evaluated, in a few words.
        commands: heading -> command, the one that makes the page again first.
        facts: heading -> text, of what was evaluated.
        warnings: what a reader of the scores must know.
        left_out: "of the split, because …" -> case id -> what is wrong with the case.
        config: the config of the run as YAML; empty where there is none.
        environment: versions and machine.
        history: rows of `history.csv`.
        best_epoch: epoch of the best checkpoint; 0 where it is not known.
        image_of: case id -> one modality (D, H, W) on the grid of the masks, air 0, or None.
        case_kind: what a case is, "volume" or "picture".
    """

    title: str
    subtitle: str
    commands: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, str]] = ()
    best_epoch: int = 0
    image_of: Callable[[str], np.ndarray | None] = lambda _: None
    case_kind: str = "volume"


def stored_box(stored: StoredCase) -> tuple[slice, ...]:
    """Return where the record's box (d, h, w) lies in its scan (D, H, W)."""
    inner = zip(stored.offset, stored.case.image.shape[:3], strict=True)
    return tuple(slice(first, first + size) for first, size in inner)


def whole_volume(
    stored: StoredCase, box: np.ndarray, around: float | list[float] = 0
) -> np.ndarray:
    """Put the box (d, h, w, …) of a record back into the scan (D, H, W, …) it was cut from.

    Args:
        box: values in the box.
        around: the value of the voxels around it, or that of each of their channels.
    """
    if box.shape[:3] == tuple(stored.full_shape):
        return box
    shape = (*stored.full_shape, *box.shape[3:])
    whole = np.zeros(shape, box.dtype)
    if np.any(around):
        whole[...] = around
    whole[stored_box(stored)] = box
    return whole


def flair_of(stored: StoredCase) -> np.ndarray:
    """Return FLAIR, or the first modality without it, of the whole scan (D, H, W), air 0."""
    names = list(stored.case.modalities)
    channel = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    return whole_volume(stored, stored.case.image[..., channel])
