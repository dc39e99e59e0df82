"""Scores of whole cases, and the table of them.

Section `metrics` of an experiment -> what `case_metrics` takes.

Dice of single slices, which is not Dice of volumes.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.files import atomic_write
from kerasseg.metrics.case_metrics import UNITS, CaseMetrics, MetricSettings, case_metrics
from kerasseg.metrics.lesions import LesionSettings
from kerasseg.metrics.overlap import EmptyRule


def metric_settings(section: MetricsSection) -> MetricSettings:
    """Every metric, at the section's tolerance, empty rule and challenge."""
    empty = EmptyRule(distance_one_empty=section.empty_distance)
    if section.empty == "skip":
        empty = EmptyRule(*(math.nan,) * 4)
    lesions = LesionSettings.of_challenge(section.lesions)
    return MetricSettings(tuple(UNITS), section.tolerance, empty, lesions)


def empty_rule_in_words(section: MetricsSection) -> str:
    """For a reader of the table."""
    if section.empty == "skip":
        return "A case where the class is empty in truth or prediction does not count."
    return (
        "A class empty in truth and prediction counts Dice 1 and distance 0 mm, empty in one of "
        f"them Dice 0 and distance {section.empty_distance:.5g} mm."
    )


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


DICE_ALONE = MetricSettings(metrics=("dice",))
"""Needs no spacing."""

_UNIONS = ("WT", "TC")
"""Regions that are unions of sub-regions; ET is one itself."""

_SUBREGIONS = "Mean of NCR, ED and ET; WT and TC are the unions NCR+ED+ET and NCR+ET."
_REGIONS = "Mean of WT (whole tumour), TC (tumour core) and ET (enhancing tumour)."
_MEANINGS = {"labels": _SUBREGIONS, "subregions": _SUBREGIONS, "regions": _REGIONS, "binary": ""}


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    dice:     each of `score_columns` -> 0..1
    figures:  names of its drawings in the folder `figures`
    classes:  each of `scored_classes` -> every metric that was asked for
    slices:   each of `scored_classes` -> Dice of its axial slices
    patient_id, seconds: of the patient, and for the prediction; "" and NaN where unknown
    depth:    number of slices
    """

    case_id: str
    split: str
    dice: dict[str, float]
    figures: tuple[str, ...] = ()
    classes: dict[str, CaseMetrics] = field(default_factory=dict)
    slices: dict[str, SlicewiseDice] = field(default_factory=dict)
    patient_id: str = ""
    seconds: float = float("nan")
    depth: int = 0


def scored_classes(target: str) -> tuple[str, ...]:
    """The target's channels but the background, and of sub-regions WT and TC."""
    channels = anatomy.tumour_channels(target)
    if len(channels) == 1:
        return channels
    return (*channels, *(region for region in _UNIONS if region not in channels))


def score_columns(target: str) -> tuple[str, ...]:
    """What Dice is given of: `scored_classes`, and after the channels, if several, their mean."""
    channels = anatomy.tumour_channels(target)
    classes = scored_classes(target)
    if len(channels) == 1:
        return classes
    return (*channels, "mean", *classes[len(channels) :])


def columns_in_words(target: str) -> str:
    """What the columns mean beyond their names; empty where there is nothing to say."""
    return _MEANINGS[target]


def class_pairs(
    label: np.ndarray, masks: np.ndarray, target: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each of `scored_classes` with its true and its predicted mask (D, H, W).

    Each channel is as it was predicted, also where masks of sub-regions overlap or TC lies outside
    WT; the unions are those of the sub-regions' masks.
    """
    ids = anatomy.TARGETS[target]
    channels = list(ids)
    for name in scored_classes(target):
        wanted = ids[name] if name in ids else anatomy.REGIONS[name]
        members = [name] if name in ids else [c for c in channels if set(ids[c]) <= set(wanted)]
        predicted = [masks[..., channels.index(member)].astype(bool) for member in members]
        yield name, np.isin(label, wanted), np.logical_or.reduce(predicted)


def score_case(
    case_id: str,
    split: str,
    label: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float] | None = None,
    settings: MetricSettings = DICE_ALONE,
) -> CaseScore:
    """Compare canonical labels (D, H, W) with predicted masks (D, H, W, K), one per channel.

    `spacing` in mm is needed for all but Dice: `ValueError` without it.
    """
    if spacing is None and settings.metrics != DICE_ALONE.metrics:
        raise ValueError("metrics beside Dice need the spacing in mm")
    classes, slices = {}, {}
    for name, truth, predicted in class_pairs(label, masks, target):
        classes[name] = case_metrics(truth, predicted, spacing or (1.0, 1.0, 1.0), settings)
        slices[name] = SlicewiseDice.measure(truth, predicted)
    dice = {name: metrics.values["dice"] for name, metrics in classes.items()}
    dice["mean"] = _mean([dice[name] for name in anatomy.tumour_channels(target)])
    dice = {name: dice[name] for name in score_columns(target)}
    return CaseScore(case_id, split, dice, classes=classes, slices=slices, depth=label.shape[0])


def mean_scores(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Mean Dice over cases of each column; empty without cases."""
    rows = list(scores)
    columns = rows[0].dice if rows else {}
    return {name: _mean([row.dice[name] for row in rows]) for name in columns}


def write_metrics(path: Path, scores: Sequence[CaseScore], target: str) -> None:
    """Write `metrics.csv`, a row per case, in one step.

    case_id, split, dice_<column>…, then <metric>_<class> of every other metric that was measured,
    in the unit of `case_metrics.UNITS`, and empty_<class>: which mask had no voxel.
    """
    columns, others = score_columns(target), other_columns(scores)
    empty = list(scores[0].classes) if others else []
    with (
        atomic_write(path, "run.root") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        names = [f"dice_{name}" for name in columns]
        names += [f"{metric}_{name}" for metric, name in others]
        writer.writerow(["case_id", "split", *names, *(f"empty_{name}" for name in empty)])
        for row in scores:
            values = [row.dice[name] for name in columns]
            values += [row.classes[name].values[metric] for metric, name in others]
            masks = [row.classes[name].empty for name in empty]
            writer.writerow([row.case_id, row.split, *(f"{v:.6f}" for v in values), *masks])


def other_columns(scores: Sequence[CaseScore]) -> list[tuple[str, str]]:
    """Metric and class of every column beside Dice."""
    if not scores:
        return []
    classes = scores[0].classes
    metrics = [m for m in next(iter(classes.values())).values if m != "dice"] if classes else []
    return [(metric, name) for metric in metrics for name in classes]


def _mean(values: Sequence[float]) -> float:
    """Of those that count; NaN without any."""
    counted = [value for value in values if not np.isnan(value)]
    return float(np.mean(counted)) if counted else float("nan")
