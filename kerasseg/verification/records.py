"""Verifying a record store: every record re-read and compared with its row in the manifest."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.datasets.findings import Finding
from kerasseg.errors import UserError
from kerasseg.in_processes import in_processes
from kerasseg.progress import track
from kerasseg.records.damage import is_damaged
from kerasseg.records.manifest import CaseRow, Manifest, read_manifest
from kerasseg.records.schema import StoredCase, decode
from kerasseg.records.tfrecord import read_record
from kerasseg.runtime import usable_cores
from kerasseg.verification.verification import CaseReport, Verification


def verify_records(experiment: Experiment) -> Verification:
    """Re-read the store of `experiment` and name every damaged record, not only the first.

    Nothing is converted, and the raw scans are not looked at. Raises `UserError` when there is no
    whole store, or its manifest cannot be read.
    """
    root = experiment.store_root
    manifest = read_manifest(root)
    if manifest is None:
        raise UserError(
            f"{root}: there is no finished record store: convert first with kerasseg convert, or "
            "name its folder with records.root=FOLDER."
        )
    workers = min(experiment.records.workers or usable_cores(), max(len(manifest.cases), 1))
    reports = in_processes(partial(_inspect, root), manifest.cases, workers, partial(_died, root))
    cases = list(track(reports, len(manifest.cases), "Reading records"))
    return Verification("records", root, cases, list(_shards(root, manifest)))


def _shards(root: Path, manifest: Manifest) -> Iterator[Finding]:
    for name, size in manifest.shards.items():
        path = root / name
        if not path.exists():
            yield Finding("error", "shard", f"{path}: this shard of the store is missing")
        elif path.stat().st_size != size:
            found = path.stat().st_size
            message = f"{path}: is {found} bytes long, the manifest says {size}"
            yield Finding("error", "shard", message)


def _inspect(root: Path, row: CaseRow) -> CaseReport:
    report = _report(row)
    words = is_damaged(root, row)
    if words is not None:
        report.findings.append(Finding("error", "damaged", words))
        return report
    where = f"{root / row.shard}: the record at byte {row.offset}"
    try:
        stored = decode(read_record(root / row.shard, row.offset, row.case_id))
        differing = list(_differences(stored, row))
    except Exception as error:
        # The bytes are those that were written, so the fault is in what wrote or reads them.
        message = f"{where} cannot be decoded ({type(error).__name__}: {error})"
        report.findings.append(Finding("error", "payload", message))
        return report
    if differing:
        message = f"{where} does not agree with the manifest: {'; '.join(differing)}"
        report.findings.append(Finding("error", "manifest", message))
    return report


def _differences(stored: StoredCase, row: CaseRow) -> Iterator[str]:
    case = stored.case
    pairs = {
        "case_id": (case.case_id, row.case_id),
        "patient_id": (case.patient_id, row.patient_id),
        "shape": (case.image.shape, row.shape),
        "full shape": (stored.full_shape, row.full_shape),
        "crop offset": (stored.offset, row.crop_offset),
        "voxels": (_voxels(stored), row.voxels),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            yield f"{name} is {found} there and {expected} in the manifest"
    if not np.isfinite(case.image).all():
        yield "the image holds NaN or infinite values"


def _voxels(stored: StoredCase) -> dict[str, int]:
    label = stored.case.label
    assert label is not None  # a record has one
    classes = anatomy.CLASSES[stored.case.classes]
    return {name: int(np.count_nonzero(label == i)) for name, i in classes.items()}


def _died(root: Path, row: CaseRow) -> CaseReport:
    report = _report(row)
    message = f"{root / row.shard}, byte {row.offset}: the process that read it was killed"
    report.findings.append(Finding("error", "crash", message))
    return report


def _report(row: CaseRow) -> CaseReport:
    return CaseReport(
        case_id=row.case_id,
        patient_id=row.patient_id,
        files=1,
        bytes=row.payload_bytes,
        shape=row.shape[:3],
        spacing=row.spacing,
        voxels=row.voxels,
    )
