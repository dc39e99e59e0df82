"""Verifying a data set: each case for itself, then all together.

`Verification`: everything that was found in a data set or a store.

What is seen only when cases stand side by side: doubles, odd grids, missing segmentations.

One case of a data set, read and looked at.

Patients that a split has torn apart, or might.

Verifying a record store: every record re-read and compared with its row in the manifest.
"""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.datasets.case import BrokenSource, Case, CaseSource
from kerasseg.datasets.checks import Finding, findings_of
from kerasseg.datasets.discovery import discover, knows_patients
from kerasseg.errors import UserError
from kerasseg.parallel import in_processes
from kerasseg.progress import track
from kerasseg.records.manifest import CaseRow, Manifest, read_manifest
from kerasseg.records.normalise import brain_mask
from kerasseg.records.schema import StoredCase, decode
from kerasseg.records.shards import is_damaged
from kerasseg.records.split_files import Parts, patients_in_two_parts, read_parts, read_split_csv
from kerasseg.records.splits import FOLDER
from kerasseg.records.tfrecord import read_record
from kerasseg.tensorflow_setup import usable_cores

Verdict = Literal["ok", "warning", "error"]


def verdict_of(findings: list[Finding]) -> Verdict:
    """The gravest severity among findings."""
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else "ok"


@dataclass
class CaseReport:
    """One case; what a case that could not be read would have told is None.

    files:      number of its files; bytes: their size together
    shape:      (D, H, W); spacing: (D, H, W) in mm
    voxels:     class -> labelled voxels; None without a segmentation
    voxel_hash: SHA-256 of the image within its signal's box; None where there is no signal
    """

    case_id: str
    patient_id: str
    files: int
    bytes: int
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    modalities: tuple[str, ...] | None = None
    voxels: dict[str, int] | None = None
    voxel_hash: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)


@dataclass
class Verification:
    """All cases below `root` (None: generated), in order, and what they show only together."""

    subject: str
    root: Path | None
    cases: list[CaseReport]
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Cases of each verdict."""
        found = Counter(case.verdict for case in self.cases)
        return {"ok": found["ok"], "warning": found["warning"], "error": found["error"]}

    @property
    def ok(self) -> bool:
        """Whether nothing is an error."""
        return self.counts["error"] == 0 and verdict_of(self.findings) != "error"


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


def patient_findings(experiment: Experiment, patients: Mapping[str, str]) -> list[Finding]:
    """Check `split.file` and the splits beside an existing store against case id -> patient id."""
    findings = []
    if not knows_patients(experiment.data):
        message = (
            f"data.layout={experiment.data.layout} does not say which pictures are of one "
            "patient, so each counts as a patient of its own: neighbouring slices of one tumour "
            "may stand in training and in test, and scores come out too high; set "
            "data.patient_pattern or data.patient_csv"
        )
        findings.append(Finding("warning", "patients", message))
    for path in _split_files(experiment):
        findings += _of_split(path, patients, csv=path == experiment.split.file)
    return findings


def _split_files(experiment: Experiment) -> Iterator[Path]:
    if experiment.split.file is not None:
        yield experiment.split.file
    yield from sorted((experiment.store_root / FOLDER).glob("*.json"))


def _of_split(path: Path, patients: Mapping[str, str], *, csv: bool) -> Iterator[Finding]:
    try:
        parts: Parts = read_split_csv(path, patients) if csv else read_parts(path)
    except UserError as error:
        yield Finding("error", "split", str(error))
        return
    for patient, first, second in patients_in_two_parts(parts, patients):
        cases = [c for part in (first, second) for c in parts[part] if patients.get(c) == patient]
        message = (
            f"{path}: patient {patient} stands in {first} and in {second} ({', '.join(cases)}), so "
            "the score would be false: put all cases of a patient on one side, or delete the file "
            "to draw anew"
        )
        yield Finding("error", "patient in two splits", message)


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
        "voxels": (_stored_voxels(stored), row.voxels),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            yield f"{name} is {found} there and {expected} in the manifest"
    if not np.isfinite(case.image).all():
        yield "the image holds NaN or infinite values"


def _stored_voxels(stored: StoredCase) -> dict[str, int]:
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


def verify(experiment: Experiment) -> Verification:
    """Read every case of `experiment.data` and collect what is wrong, without stopping at it.

    Raises `UserError` only when there is nothing to verify: no folder, or no case in it.
    """
    sources = discover(experiment.data)
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    reports = in_processes(inspect_case, sources, workers, died)
    cases = list(track(reports, len(sources), "Verifying cases"))
    findings = compare_cases(cases, experiment.data)
    findings += patient_findings(experiment, {case.case_id: case.patient_id for case in cases})
    return Verification(experiment.data.layout, experiment.data.root, cases, findings)
