"""What is seen only when cases stand side by side: doubles, odd grids, missing segmentations."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeVar

from kerasseg.datasets.findings import Finding
from kerasseg.settings.data import DataSettings
from kerasseg.verification.verification import CaseReport

_NO_SEGMENTATION = "no segmentation"

V = TypeVar("V")


def compare_cases(cases: Sequence[CaseReport], settings: DataSettings) -> list[Finding]:
    """Add to the findings of single cases, and return those of the data set as a whole."""
    _mark_doubles(cases)
    _forgive_missing_segmentations(cases)
    if not settings.knows_spacing:
        for case in cases:
            case.spacing = None  # the 1 mm of the reader is none that anybody has measured
        return []
    if settings.spacing is not None:
        return []
    return _mark_odd_grids([case for case in cases if case.shape and case.spacing])


def _mark_doubles(cases: Sequence[CaseReport]) -> None:
    same_voxels: dict[str, list[CaseReport]] = defaultdict(list)
    for case in cases:
        if case.voxel_hash:
            same_voxels[case.voxel_hash].append(case)
    for doubles in same_voxels.values():
        for case in doubles:
            others = [other for other in doubles if other is not case]
            if not others:
                continue
            names = " and ".join(other.case_id for other in others)
            leak = any(other.patient_id != case.patient_id for other in others)
            reason = (
                "a split could train on one and test on the other"
                if leak
                else "it counts twice in training and in every score"
            )
            message = f"has the same voxels as {names}: {reason}; remove all but one"
            case.findings.append(Finding("error" if leak else "warning", "duplicate", message))


def _forgive_missing_segmentations(cases: Sequence[CaseReport]) -> None:
    """A data set without any is one to predict, and nobody need be told of every case."""
    if any(case.voxels is not None for case in cases):
        return
    for case in cases:
        case.findings[:] = [f for f in case.findings if f.check != _NO_SEGMENTATION]


def _mark_odd_grids(cases: Sequence[CaseReport]) -> list[Finding]:
    findings = []
    spacings = {
        case.case_id: tuple(round(size, 3) for size in case.spacing or ()) for case in cases
    }
    usual, sizes = _majority(spacings), sorted(set(spacings.values()))
    if len(sizes) > 1 and usual is None:
        message = (
            f"there are {len(sizes)} voxel sizes, from {by(sizes[0])} to {by(sizes[-1])} mm (depth "
            "x height x width), and none has the majority: a network sees voxels, not mm; bring "
            "all cases to one with data.spacing"
        )
        findings.append(Finding("warning", "spacing", message))
    shapes = {case.case_id: case.shape or () for case in cases}
    usual_shape = _majority(shapes)
    for case in cases:
        spacing, shape = spacings[case.case_id], shapes[case.case_id]
        if usual not in (None, spacing):
            message = (
                f"voxels of {by(spacing)} mm (depth x height x width), but most cases have "
                f"{by(usual or ())}: bring all cases to one with "
                f"data.spacing=[{','.join(f'{size:g}' for size in usual or ())}]"
            )
            case.findings.append(Finding("warning", "spacing", message))
        elif usual_shape not in (None, shape):
            message = (
                f"{by(shape)} voxels (depth x height x width), but most cases have "
                f"{by(usual_shape or ())}: see that the scan is whole"
            )
            case.findings.append(Finding("warning", "size", message))
    return findings


def by(sizes: Sequence[float]) -> str:
    """(155, 240, 240) -> 155x240x240."""
    return "x".join(f"{size:g}" for size in sizes)


def _majority(values: dict[str, V]) -> V | None:
    """What more than half of the cases have."""
    if not values:
        return None
    value, count = Counter(values.values()).most_common(1)[0]
    return value if 2 * count > len(values) else None
