"""The scores of whole cases, and the table of them, `metrics.csv`."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.config.base import check_arguments, import_object, imported_entry
from kerasseg.config.evaluation import MetricsSection
from kerasseg.errors import UserError
from kerasseg.files import write_csv
from kerasseg.metrics.case_metrics import UNITS, CaseMetrics, MetricSettings, case_metrics
from kerasseg.metrics.lesions import LesionSettings
from kerasseg.metrics.overlap import EmptyRule


def metric_settings(section: MetricsSection) -> MetricSettings:
    """Return settings for every metric at the tolerance, empty rule and challenge of a section.

    Raises `UserError` for a metric of the user that cannot be imported or called.
    """
    empty = EmptyRule(distance_one_empty=section.empty_distance)
    if section.empty == "skip":
        empty = EmptyRule(*(math.nan,) * 4)
    lesions = LesionSettings.of_challenge(section.lesions)
    further = {}
    for entry in section.further:
        path, options = imported_entry("metrics.further", entry)
        function = import_object("metrics.further", path, "a function of two masks")
        arguments = ("truth", "prediction", "spacing")
        check_arguments("metrics.further", path, function, arguments, options)
        name = path.rpartition(".")[2]
        if name in UNITS:
            raise UserError(f"metrics.further: there is a metric {name} already: rename {path}.")
        further[name] = partial(function, **options)
    return MetricSettings(tuple(UNITS), section.tolerance, empty, lesions, further)


def describe_empty_rule(section: MetricsSection) -> str:
    """Return a sentence on how empty masks count, for a reader of the table."""
    if section.empty == "skip":
        return "A case where the class is empty in truth or prediction does not count."
    return (
        "A class empty in truth and prediction counts Dice 1 and distance 0 mm, empty in one of "
        f"them Dice 0 and distance {section.empty_distance:.5g} mm."
    )


@dataclass(frozen=True)
class SlicewiseDice:
    """The sum of the Dice of slices and their number; `a + b` is that of both.

    It is another quantity than the Dice of volumes.
    """

    total: float = 0.0
    slices: int = 0

    @property
    def mean(self) -> float:
        """Return the mean over the slices, or NaN if there are none."""
        return self.total / self.slices if self.slices else float("nan")

    def __add__(self, other: "SlicewiseDice") -> "SlicewiseDice":
        return SlicewiseDice(self.total + other.total, self.slices + other.slices)

    @classmethod
    def measure(cls, truth: np.ndarray, prediction: np.ndarray, axis: int = 0) -> "SlicewiseDice":
        """Measure two boolean masks (D, H, W), slice by slice along `axis`.

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
"""Dice needs no spacing."""

_UNIONS = ("WT", "TC")
"""Regions that are unions of sub-regions; ET is one itself."""

_SUBREGIONS = "Mean of NCR, ED and ET; WT and TC are the unions NCR+ED+ET and NCR+ET."
_REGIONS = "Mean of WT (whole tumour), TC (tumour core) and ET (enhancing tumour)."
_MEANINGS = {"labels": _SUBREGIONS, "subregions": _SUBREGIONS, "regions": _REGIONS, "binary": ""}


@dataclass(frozen=True)
class CaseScore:
    """The scores of one case.

    Attributes:
        split: side of the split, or where the case comes from.
        dice: each of `score_columns` -> Dice, 0 to 1.
        classes: each of `scored_classes` -> every metric that was asked for.
        slices: each of `scored_classes` -> Dice of its axial slices.
        patient_id: "" where it is not known.
        seconds: time that the prediction took; NaN where it is not known.
        depth: number of axial slices.
    """

    case_id: str
    split: str
    dice: dict[str, float]
    classes: dict[str, CaseMetrics] = field(default_factory=dict)
    slices: dict[str, SlicewiseDice] = field(default_factory=dict)
    patient_id: str = ""
    seconds: float = float("nan")
    depth: int = 0

    def value(self, name: str, metric: str) -> float:
        """Return a metric of a class, or as that of `mean` its mean over the target's channels.

        Channels in which it is NaN do not count.
        """
        if name != "mean":
            return self.classes[name].values[metric]
        columns = list(self.dice)
        channels = columns[: columns.index("mean")]
        return _mean([self.classes[channel].values[metric] for channel in channels])


def scored_classes(target: str) -> tuple[str, ...]:
    """Return the target's channels but the background, and WT and TC where it has sub-regions."""
    channels = anatomy.tumour_channels(target)
    if len(channels) == 1:
        return channels
    return (*channels, *(region for region in _UNIONS if region not in channels))


def score_columns(target: str) -> tuple[str, ...]:
    """Return the columns of Dice: `scored_classes`, with a mean after the channels if several."""
    channels = anatomy.tumour_channels(target)
    classes = scored_classes(target)
    if len(channels) == 1:
        return classes
    return (*channels, "mean", *classes[len(channels) :])


def describe_columns(target: str) -> str:
    """Return a sentence on what the columns mean; it is empty where names say all."""
    return _MEANINGS[target]


def class_pairs(
    label: np.ndarray, masks: np.ndarray, target: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each of `scored_classes` with its true and its predicted mask (D, H, W).

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
    """Compare the truth of a case with its prediction.

    Raises `ValueError` if a metric other than Dice has no spacing.

    Args:
        label: canonical labels (D, H, W).
        masks: predicted masks (D, H, W, K), one per channel of the target.
        target: a key of `anatomy.TARGETS`.
        spacing: voxel size (D, H, W) in mm; only Dice can do without it.
        settings: which metrics are measured, and how.
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
    """Return the mean Dice over cases of each column; there are none without cases."""
    rows = list(scores)
    columns = rows[0].dice if rows else {}
    return {name: _mean([row.dice[name] for row in rows]) for name in columns}


def write_metrics(
    path: Path,
    scores: Sequence[CaseScore],
    target: str,
    setting: str = "run.root",
    prompt: str = "",
) -> None:
    """Write `metrics.csv`, a row per case, in one step.

    The columns are case_id, split, dice_<column>…, then <metric>_<class> of every other metric that
    was measured, in the unit of `case_metrics.UNITS`, empty_<class>: which mask had no voxel, and
    the `prompt` that a network got, if it takes one.
    An error message names `setting`.
    """
    columns = score_columns(target)
    classes = list(scores[0].classes) if scores else []
    metrics = [m for m in scores[0].classes[classes[0]].values if m != "dice"] if classes else []
    others = [(metric, name) for metric in metrics for name in classes]
    empty = classes if others else []
    names = [f"dice_{name}" for name in columns]
    names += [f"{metric}_{name}" for metric, name in others]
    names += [f"empty_{name}" for name in empty]
    rows = [["case_id", "split", *names, *(["prompt"] if prompt else [])]]
    for row in scores:
        values = [row.dice[name] for name in columns]
        values += [row.classes[name].values[metric] for metric, name in others]
        masks = [row.classes[name].empty for name in empty]
        cells = [row.case_id, row.split, *(f"{v:.6f}" for v in values), *masks]
        rows.append([*cells, *([prompt] if prompt else [])])
    write_csv(path, rows, setting)


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the non-NaN values, or NaN if there are none."""
    counted = [value for value in values if not np.isnan(value)]
    return float(np.mean(counted)) if counted else float("nan")
