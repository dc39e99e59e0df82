"""One case of a data set, read and looked at."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.datasets.findings import Finding, findings_of
from kerasseg.datasets.source import BrokenSource, CaseSource
from kerasseg.errors import UserError
from kerasseg.records.normalise import brain_mask
from kerasseg.verification.verification import CaseReport


def inspect_case(source: CaseSource) -> CaseReport:
    """Read a case and say everything that is wrong with it; never raises an `Exception`."""
    report = empty_report(source)
    try:
        case = source.load()
        report.shape = _shape(case)
        report.spacing = case.spacing
        report.modalities = case.modalities
        report.voxels = _voxels(case)
        report.voxel_hash = _voxel_hash(case)
        report.findings += findings_of(case)
    except UserError as error:
        check = "files" if isinstance(source, BrokenSource) else "unreadable"
        report.findings.append(Finding("error", check, str(error)))
    except Exception as error:
        # A file that our readers did not expect must not hide what is wrong with the others.
        report.findings.append(Finding("error", "crash", f"{type(error).__name__}: {error}"))
    return report


def died(source: CaseSource) -> CaseReport:
    """The report of a case whose reading process was killed."""
    message = (
        "the process that read it was killed, most likely because memory ran out: try again with "
        "records.workers=1"
    )
    report = empty_report(source)
    report.findings.append(Finding("error", "crash", message))
    return report


def empty_report(source: CaseSource) -> CaseReport:
    """What is known of a case before it is read."""
    return CaseReport(
        source.case_id, source.patient_id, len(source.files), _bytes_on_disk(source.files)
    )


def _bytes_on_disk(files: Sequence[Path]) -> int:
    total = 0
    for path in files:
        with contextlib.suppress(OSError):  # a link to nowhere; reading the case says so
            total += path.stat().st_size
    return total


def _shape(case: Case) -> tuple[int, int, int]:
    depth, height, width, _ = case.image.shape
    return depth, height, width


def _voxels(case: Case) -> dict[str, int] | None:
    if case.label is None:
        return None
    counts = np.bincount(case.label.ravel(), minlength=max(anatomy.LABELS) + 1)
    return {name: int(counts[class_id]) for name, class_id in anatomy.CLASSES[case.classes].items()}


def _voxel_hash(case: Case) -> str | None:
    """The same for the same scan, however much air is around it."""
    box, _ = brain_mask(case.image, known=case.box)
    image = np.ascontiguousarray(case.image[box])
    if not image.size:
        return None
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image.data)
    return digest.hexdigest()
