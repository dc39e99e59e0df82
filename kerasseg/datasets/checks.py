"""Reading a case: load it, check it, bring it to the grid that the experiment asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, CaseSource
from kerasseg.datasets.resample import resample_case, resize_case
from kerasseg.errors import UserError

Severity = Literal["error", "warning"]
_OUTSIDE_IS_WRONG = 0.5
"""Share of the tumour outside the brain above which image and label cannot belong together."""


@dataclass(frozen=True)
class Finding:
    """Something found in a case. `check` is its short name, the same for every case.

    An error keeps the case out of training; a warning is for a person to look at.
    """

    severity: Severity
    check: str
    message: str


def findings_of(case: Case) -> Iterator[Finding]:
    """Yield everything wrong or odd that can be seen in one case alone."""
    inside = case.image if case.box is None else case.image[case.box]
    lows, highs = _ranges(inside)
    for channel, modality in enumerate(case.modalities):
        values = inside[..., channel]
        yield from _channel(case, values, modality, lows[channel], highs[channel])
    if any(not 0 < size < np.inf for size in case.spacing):
        yield Finding("error", "spacing", f"voxel size {case.spacing} mm is impossible")
    for note in case.notes:
        yield Finding("warning", "note", note)
    if case.label is None:
        yield Finding("warning", "no segmentation", "has no segmentation: it cannot train")
        return
    if case.label.shape != case.image.shape[:3]:
        yield Finding(
            "error",
            "shape",
            f"the segmentation has shape {case.label.shape} (depth, height, width) but the image "
            f"has {case.image.shape[:3]}: they must be of the same scan",
        )
        return
    yield from _label(case, case.label)


def check_case(case: Case) -> Case:
    """Return `case` if a store may hold it. Raises `UserError` with its first error otherwise."""
    for finding in findings_of(case):
        if finding.severity == "error":
            raise UserError(f"{case.case_id}: {finding.message}.")
    return case


def _ranges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest value of each channel of (D, H, W, C); 0 without voxels."""
    depth, height, width, channels = image.shape
    if not image.size:
        return np.zeros(channels), np.zeros(channels)
    # Over the slow axes first, so that the inner loop is long and contiguous.
    rows = image.reshape(depth, height, width * channels)
    low, high = rows.min(axis=(0, 1)), rows.max(axis=(0, 1))
    return low.reshape(width, channels).min(axis=0), high.reshape(width, channels).max(axis=0)


def _channel(
    case: Case, values: np.ndarray, modality: str, low: float, high: float
) -> Iterator[Finding]:
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max pass NaN on
        bad = np.argwhere(~np.isfinite(values))
        corner = [s.start for s in case.box] if case.box else [0, 0, 0]
        place = tuple(int(v + c) for v, c in zip(bad[0], corner, strict=True))
        yield Finding(
            "error",
            "finite",
            f"{modality} has {len(bad)} NaN or infinite voxel(s), the first at (depth, height, "
            f"width) = {place}: repair or remove this case",
        )
        return
    if low == high == 0:
        yield Finding(
            "error",
            "constant",
            f"{modality} is zero in every voxel: the scan is empty; restore the file or remove "
            "this case",
        )
    elif low == high and values.size == np.prod(case.image.shape[:3]):
        yield Finding(
            "error",
            "constant",
            f"{modality} is {low:g} in every voxel: there is no scan in the file; restore it or "
            "remove this case",
        )


def _label(case: Case, label: np.ndarray) -> Iterator[Finding]:
    count = int(np.count_nonzero(label))
    if not count:
        yield Finding("warning", "empty segmentation", "the segmentation has no tumour")
        return
    box = case.box or (slice(None),) * 3
    voxels = case.image[box][label[box] > 0]  # few, so looking at each is cheap
    outside = count - int(np.count_nonzero(voxels.any(axis=-1)))
    if outside > _OUTSIDE_IS_WRONG * count:
        yield Finding(
            "error",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0: image and "
            "segmentation do not belong together, or one of them is flipped",
        )
    elif outside:
        yield Finding(
            "warning",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0",
        )


def read_case(source: CaseSource, settings: DataSettings) -> Case:
    """Load a case, check it, and bring it to the grid that section `data` asks for.

    Raises `UserError` for a file that cannot be read and for anything that `findings_of` calls an
    error.
    """
    return to_grid(check_case(source.load()), settings)


def to_grid(case: Case, settings: DataSettings) -> Case:
    """Resize a case to `data.size` or resample it to `data.spacing`, if either is set."""
    if settings.size is not None:
        return resize_case(case, settings.size)
    if settings.spacing is None:
        return case
    order = 3 if settings.interpolation == "cubic" else 1
    return resample_case(case, settings.spacing, order)
