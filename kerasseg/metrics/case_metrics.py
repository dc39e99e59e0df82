"""Every metric of one mask of one case."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from kerasseg.datasets.case import bounding_box
from kerasseg.metrics.lesions import Components, Lesion, LesionCounts, LesionSettings, lesion_wise
from kerasseg.metrics.overlap import Empty, EmptyRule, Overlap, which_empty
from kerasseg.metrics.surface import SurfaceDistances

UNITS: Final = MappingProxyType(
    {
        "dice": "",
        "iou": "",
        "precision": "",
        "recall": "",
        "specificity": "",
        "volume_truth": "mL",
        "volume_prediction": "mL",
        "volume_error": "mL",
        "volume_error_absolute": "mL",
        "volume_error_relative": "",
        "hd95": "mm",
        "assd": "mm",
        "surface_dice": "",
        "lesions_found": "",
        "lesions_invented": "",
        "lesions_missed": "",
        "lesion_wise_dice": "",
        "lesion_wise_hd95": "mm",
        "lesion_wise_found": "",
        "lesion_wise_invented": "",
        "lesion_wise_missed": "",
    }
)
"""Every metric and its unit; "" is a share, a ratio or a number of lesions."""


def unit_of(metric: str) -> str:
    """Return the unit of a metric; those of the user have none, or one in their names."""
    return UNITS.get(metric, "")


BY_RULE: Final = ("dice", "iou", "precision", "recall", "hd95", "assd", "surface_dice")
"""The metrics that `EmptyRule` decides where truth or prediction is empty."""

_SURFACES: Final = frozenset({"hd95", "assd", "surface_dice"})
_COUNTS: Final = frozenset(name for name in UNITS if name.startswith("lesions_"))
_LESION_WISE: Final = frozenset(name for name in UNITS if name.startswith("lesion_wise_"))


@dataclass(frozen=True)
class MetricSettings:
    """The metrics that are computed, and their parameters.

    metrics:   names out of `UNITS`; what none of them needs is not computed
    tolerance: mm within which two surfaces agree, for `surface_dice`
    empty:     values where a mask is empty
    lesions:   how `lesion_wise` finds lesions
    further:   the user's metrics: name -> function(truth, prediction, spacing) -> number

    ValueError: an unknown metric, or a tolerance below 0.
    """

    metrics: tuple[str, ...] = tuple(UNITS)
    tolerance: float = 1.0
    empty: EmptyRule = field(default_factory=EmptyRule)
    lesions: LesionSettings = field(default_factory=LesionSettings)
    further: Mapping[str, Callable[..., float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in UNITS]
        if unknown:
            raise ValueError(f"unknown metric {', '.join(unknown)}: there are {', '.join(UNITS)}")
        if not 0.0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance} mm: expected 0 or more")


@dataclass(frozen=True)
class CaseMetrics:
    """The metrics of one mask of a case.

    values:  metric -> value in its unit of `UNITS`, in the settings' order
    empty:   which mask has no voxel
    by_rule: the metrics of `values` that `EmptyRule` decided, not a measurement
    lesions: the lesions of the truth as `lesion_wise` sees them; empty where it was not asked for
    """

    values: dict[str, float]
    empty: Empty
    by_rule: tuple[str, ...]
    lesions: tuple[Lesion, ...]


def case_metrics(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    settings: MetricSettings | None = None,
) -> CaseMetrics:
    """Compare two boolean masks (D, H, W) of one class or region, spacing in mm (D, H, W).

    Where truth or prediction is empty:

    - `BY_RULE`: the values of `settings.empty`, and their names in the result's `by_rule`;
    - `specificity` is always measured; a truth that fills the volume leaves no room for a false
      positive: 1;
    - volumes and their error (prediction - truth) are measured; the relative error, in parts of the
      truth, is 0 where both are empty and NaN where only the truth is;
    - `lesions_…` are counted; `lesion_wise_…` follow BraTS 2023, see `lesion_wise`.

    ValueError: masks that are not boolean, 3-D and of one shape, or a spacing that is not above 0.
    """
    settings = settings or MetricSettings()
    _check(truth, prediction, spacing)
    further = {n: float(f(truth, prediction, spacing)) for n, f in settings.further.items()}
    voxels = truth.size
    empty = which_empty(truth, prediction)
    if empty != "both":
        truth, prediction = _cut(truth, prediction)
    values = _voxel_metrics(Overlap.count(truth, prediction, voxels), spacing)
    lesions: tuple[Lesion, ...] = ()
    if empty == "neither" and not _SURFACES.isdisjoint(settings.metrics):
        distances = SurfaceDistances.measure(truth, prediction, spacing)
        values |= {
            "hd95": distances.hd95,
            "assd": distances.assd,
            "surface_dice": distances.surface_dice(settings.tolerance),
        }
    if not (_COUNTS | _LESION_WISE).isdisjoint(settings.metrics):
        components = Components.of_mask(prediction)
    if not _COUNTS.isdisjoint(settings.metrics):
        counts = LesionCounts.count(Components.of_mask(truth), components)
        values |= {
            "lesions_found": counts.found,
            "lesions_invented": counts.invented,
            "lesions_missed": counts.missed,
        }
    if not _LESION_WISE.isdisjoint(settings.metrics):
        scores = lesion_wise(truth, components, spacing, settings.lesions)
        lesions = scores.lesions
        values |= {
            "lesion_wise_dice": scores.dice,
            "lesion_wise_hd95": scores.hd95,
            "lesion_wise_found": scores.found,
            "lesion_wise_invented": scores.invented,
            "lesion_wise_missed": scores.missed,
        }
    by_rule: tuple[str, ...] = ()
    if empty != "neither":
        values |= dict.fromkeys(BY_RULE, settings.empty.overlap(empty))
        values |= dict.fromkeys(("hd95", "assd"), settings.empty.distance(empty))
        by_rule = tuple(name for name in settings.metrics if name in BY_RULE)
    chosen = {name: float(values[name]) for name in settings.metrics} | further
    return CaseMetrics(chosen, empty, by_rule, lesions)


def _check(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]) -> None:
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype != bool or mask.ndim != 3:
            raise ValueError(
                f"{name} is {mask.dtype} {mask.shape}: expected a boolean mask (D, H, W)"
            )
    if truth.shape != prediction.shape or truth.size == 0:
        raise ValueError(
            f"truth is {truth.shape}, prediction {prediction.shape}: expected one shape with voxels"
        )
    if len(spacing) != 3 or not all(0 < side < math.inf for side in spacing):
        raise ValueError(f"spacing is {spacing}: expected three sides in mm (D, H, W), above 0")


def _cut(truth: np.ndarray, prediction: np.ndarray) -> Iterator[np.ndarray]:
    """Cut to the box around both masks and a voxel of background on every side.

    Along the flat axis of a slice there is none: `surface` must still see that it is a slice.
    """
    margin = [0 if side == 1 else 1 for side in truth.shape]
    box = bounding_box(truth | prediction)
    return (np.pad(mask[box], [(side, side) for side in margin]) for mask in (truth, prediction))


def _voxel_metrics(overlap: Overlap, spacing: tuple[float, float, float]) -> dict[str, float]:
    millilitres = math.prod(spacing) / 1000.0
    predicted = overlap.hits + overlap.false_positives
    true = overlap.hits + overlap.false_negatives
    difference = predicted - true
    nothing_to_exclude = overlap.true_negatives + overlap.false_positives == 0
    return {
        "dice": overlap.dice,
        "iou": overlap.iou,
        "precision": overlap.precision,
        "recall": overlap.recall,
        "specificity": 1.0 if nothing_to_exclude else overlap.specificity,
        "volume_truth": true * millilitres,
        "volume_prediction": predicted * millilitres,
        "volume_error": difference * millilitres,
        "volume_error_absolute": abs(difference) * millilitres,
        "volume_error_relative": difference / true if true else 0.0 if not predicted else math.nan,
    }
