"""Reading a case: load it, check it, bring it to the grid that the experiment asks for."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, CaseSource
from kerasseg.datasets.resample import resample_case, resize_case
from kerasseg.errors import UserError

_AXES = ("depth", "height", "width")
Severity = Literal["error", "warning"]
_OUTSIDE_IS_WRONG = 0.5
"""Share of the tumour outside the brain above which image and label cannot belong together."""
_OUTSIDE_IS_TURNED = 0.2
"""The same where the label would fit after being turned: then this share is enough."""
_FITS = 0.2
"""A turned label fits if at most this share of what lay outside still does."""
_ENOUGH_VOXELS = 20_000
"""So many voxels of a label tell well enough whether it fits."""
_NO_TUMOUR = 2 / 3
"""Share of the scan above which no tumour is labelled but the brain, or everything around one. An
ellipsoid fills 0.52 of the smallest box around it."""


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


def check_enhancing_ids(examples: Mapping[int | None, str]) -> None:
    """Raise `UserError` if enhancing tumour is 3 in one case of a data set and 4 in another.

    Only one of them can be: the other id is something else, such as a resection cavity.

    Args:
        examples: `Case.enhancing_id` -> the name of a case that has it.
    """
    if {3, 4} <= examples.keys():
        raise UserError(
            f"label 3 occurs in {examples[3]} and label 4 in {examples[4]}. Up to BraTS 2021 "
            "enhancing tumour is 4, from 2023 on it is 3, and from 2024 on 4 is a resection "
            "cavity: say what each id is in data.label_map."
        )


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
    inside = int(np.count_nonzero(voxels.any(axis=-1)))
    outside = count - inside
    scan = np.count_nonzero(case.image[box].any(axis=-1) if case.signal is None else case.signal)
    share = outside / count
    turn = _fitting_turn(case, label, share) if share > _OUTSIDE_IS_TURNED else None
    if turn:
        yield Finding(
            "error",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0, and hardly any "
            f"would if the segmentation were {turn}: its header does not say how it lies; write it "
            "anew from the original",
        )
    elif outside > _OUTSIDE_IS_WRONG * count:
        yield Finding(
            "error",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0: image and "
            "segmentation do not belong together, or one of them is flipped",
        )
    elif inside > _NO_TUMOUR * scan:
        yield Finding(
            "error" if label.shape[0] > 1 else "warning",
            "whole brain",
            f"the segmentation covers {inside / scan:.0%} of the scan: it is a mask of the brain, "
            "or has tumour and background swapped",
        )
    elif outside:
        yield Finding(
            "warning",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0",
        )


def _fitting_turn(case: Case, label: np.ndarray, outside: float) -> str | None:
    """Name the way in which a label (D, H, W) must be turned to lie in the brain, if there is one.

    outside: share of its voxels that lies outside now.
    """
    labelled = np.flatnonzero(label)
    labelled = labelled[:: -(-labelled.size // _ENOUGH_VOXELS)]
    places = np.stack(np.unravel_index(labelled, label.shape), axis=-1)
    last = np.array(label.shape) - 1
    for order in itertools.permutations(range(3)):
        if tuple(label.shape[axis] for axis in order) != label.shape:
            continue
        for flips in itertools.product((False, True), repeat=3):
            turned = np.where(flips, last - places[:, order], places[:, order])
            inside = case.image[tuple(turned.T)].any(axis=-1)
            if 1 - inside.mean() <= _FITS * outside:
                names = [name for name, flip in zip(_AXES, flips, strict=True) if flip]
                swapped = [name for axis, name in enumerate(_AXES) if order[axis] != axis]
                parts = [f"flipped in {' and '.join(names)}"] if names else []
                parts += [f"turned, with {' and '.join(swapped)} swapped"] if swapped else []
                return " and ".join(parts)
    return None


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
