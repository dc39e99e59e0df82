"""`kerasseg verify`: everything that is wrong with a data set, its splits, or a record store."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.data_report.statistics import KILLED
from kerasseg.datasets.case import BrokenSource, Case, CaseSource, bounding_box
from kerasseg.datasets.checks import (
    SPEAKS_AGAINST,
    Finding,
    check_enhancing_ids,
    findings_of,
    format_sizes,
    grid_error,
    lone_class,
    tumour_contrast,
)
from kerasseg.datasets.discovery import discover, knows_patients, unclear_patients
from kerasseg.errors import UserError, printable
from kerasseg.parallel import parallel_map
from kerasseg.progress import track
from kerasseg.records.manifest import CaseRow, read_manifest
from kerasseg.records.schema import StoredCase, decode
from kerasseg.records.shards import is_damaged
from kerasseg.records.split_files import Parts, patients_in_two_parts, read_parts, read_split_csv
from kerasseg.records.splits import FOLDER
from kerasseg.records.store import shard_faults
from kerasseg.records.tfrecord import read_record
from kerasseg.tensorflow_setup import usable_cores

Verdict = Literal["ok", "warning", "error"]
_NO_SEGMENTATION = "no segmentation"
_ENOUGH_CASES = 5
_LEAST_SPREAD = 0.5
"""Contrasts of tumours differ so much, however alike those of a few cases are."""

V = TypeVar("V")


def verdict_of(findings: list[Finding]) -> Verdict:
    """Return the gravest severity among findings, or "ok" if there are none."""
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else "ok"


@dataclass
class CaseReport:
    """The facts about one case. Facts of a case that could not be read are None.

    Attributes:
        files: Number of its files.
        bytes: Size of its files together.
        shape: Voxels (D, H, W).
        spacing: Size of a voxel (D, H, W) in mm.
        modalities: Names of the image's channels.
        voxels: Class -> labelled voxels; None without a segmentation.
        hashes: Modality -> SHA-256 of its voxels in the box of those that are not 0.
        contrast: Brightness of the tumour, as `tumour_contrast` has it, if nothing is wrong.
        enhancing_id: Which of 3 and 4 its segmentation has, where that tells the year of BraTS.
        findings: Everything that is wrong with the case.
    """

    case_id: str
    patient_id: str
    files: int
    bytes: int
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    modalities: tuple[str, ...] | None = None
    voxels: dict[str, int] | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    contrast: dict[str, float] = field(default_factory=dict)
    enhancing_id: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The gravest severity among the findings."""
        return verdict_of(self.findings)


@dataclass
class Verification:
    """Everything that was found in a data set or a store.

    Attributes:
        subject: The layout of the data set, or "records".
        root: The folder; None for generated cases.
        findings: Findings about the data set as a whole.
    """

    subject: str
    root: Path | None
    cases: list[CaseReport]
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[Verdict, int]:
        """The number of cases of each verdict."""
        found = Counter(case.verdict for case in self.cases)
        return {"ok": found["ok"], "warning": found["warning"], "error": found["error"]}

    @property
    def ok(self) -> bool:
        """True if there is no error, neither in a case nor in the whole."""
        return self.counts["error"] == 0 and verdict_of(self.findings) != "error"


def verify(experiment: Experiment) -> Verification:
    """Read every case of a data set and collect everything that is wrong.

    Raises `UserError` if there is nothing to verify: no folder, or no case in it.
    """
    sources = discover(experiment.data)
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    reports = parallel_map(inspect_case, sources, workers, report_killed)
    cases = list(track(reports, len(sources), "Verifying cases"))
    findings = compare_cases(cases, experiment.data)
    findings += patient_findings(experiment, {case.case_id: case.patient_id for case in cases})
    return Verification(experiment.data.layout, experiment.data.root, cases, findings)


def verify_records(experiment: Experiment) -> Verification:
    """Read every record of a store again and compare it with the manifest.

    Nothing is converted, and the raw scans are not read. Raises `UserError` if there is no finished
    store, or if its manifest cannot be read.
    """
    root = experiment.store_root
    manifest = read_manifest(root)
    if manifest is None:
        raise UserError(
            f"{root}: there is no finished record store: convert first with kerasseg convert, or "
            "name its folder with records.root=FOLDER."
        )
    workers = min(experiment.records.workers or usable_cores(), max(len(manifest.cases), 1))
    inspect, killed = partial(_inspect_record, root), partial(_report_killed_record, root)
    reports = parallel_map(inspect, manifest.cases, workers, killed)
    cases = list(track(reports, len(manifest.cases), "Reading records"))
    faults = [Finding("error", "shard", message) for message in shard_faults(manifest, root)]
    return Verification("records", root, cases, faults)


def inspect_case(source: CaseSource) -> CaseReport:
    """Read a case and report everything that is wrong with it. This never raises an `Exception`."""
    report = _unread(source)
    try:
        case = source.load()
        depth, height, width = case.image.shape[:3]
        report.shape = depth, height, width
        report.spacing = case.spacing
        report.modalities = case.modalities
        report.voxels = _count_voxels(case)
        report.hashes = _hash_voxels(case)
        report.enhancing_id = case.enhancing_id
        report.findings += findings_of(case)
        report.contrast = tumour_contrast(case) if report.verdict == "ok" else {}
    except UserError as error:
        check = "files" if isinstance(source, BrokenSource) else "unreadable"
        report.findings.append(Finding("error", check, str(error)))
    except Exception as error:
        # A file that our readers did not expect must not hide the findings of the other cases.
        message = printable(f"{type(error).__name__}: {error}")
        report.findings.append(Finding("error", "crash", message))
    return report


def report_killed(source: CaseSource) -> CaseReport:
    """Return the report of a case whose reading process was killed."""
    report = _unread(source)
    report.findings.append(Finding("error", "crash", KILLED))
    return report


def _unread(source: CaseSource) -> CaseReport:
    """Return what is known of a case before it is read."""
    size = 0
    for path in source.files:
        with suppress(OSError):  # a link to nowhere, a closed folder: reading reports it
            size += path.stat().st_size
    return CaseReport(source.case_id, source.patient_id, len(source.files), size)


def _count_voxels(case: Case) -> dict[str, int] | None:
    if case.label is None:
        return None
    counts = np.bincount(case.label.ravel(), minlength=max(anatomy.LABELS) + 1)
    return {name: int(counts[class_id]) for name, class_id in anatomy.CLASSES[case.classes].items()}


def _hash_voxels(case: Case) -> dict[str, str]:
    """Hash each modality so that the same scan has the same hash, however much air is around it."""
    image = case.image if case.box is None else case.image[case.box]
    hashes = {}
    for channel, modality in enumerate(case.modalities):
        values = np.ascontiguousarray(image[..., channel])
        values = np.ascontiguousarray(values[bounding_box(values != 0)])
        if values.size:
            digest = hashlib.sha256(repr(values.shape).encode())
            digest.update(values.data)
            hashes[modality] = digest.hexdigest()
    return hashes


def compare_cases(cases: Sequence[CaseReport], settings: DataSettings) -> list[Finding]:
    """Find what only a comparison of cases shows.

    Findings about a case are added to its report. Those about the whole set are returned.
    """
    _mark_duplicates(cases)
    _mark_exchanged([case for case in cases if case.contrast])
    if all(case.voxels is None for case in cases):
        # No case has a segmentation, so the data set is there to be predicted.
        for case in cases:
            case.findings[:] = [f for f in case.findings if f.check != _NO_SEGMENTATION]
    findings = []
    try:
        check_enhancing_ids({case.enhancing_id: case.case_id for case in cases})
    except UserError as error:
        findings.append(Finding("error", "label ids", str(error)))
    if lone := lone_class(case.voxels for case in cases if case.voxels):
        findings.append(Finding("warning", "one class", lone))
    if not settings.facts.knows_spacing:
        for case in cases:
            case.spacing = None  # the reader's 1 mm is not a measured size
    elif settings.spacing is None:
        findings += _mark_odd_grids([case for case in cases if case.shape and case.spacing])
    else:
        for case in cases:
            if case.shape and case.spacing:
                wrong = grid_error(case.shape, case.spacing, settings.spacing)
                case.findings += [Finding("error", "spacing", wrong)] if wrong else []
    return findings


def _mark_duplicates(cases: Sequence[CaseReport]) -> None:
    same_voxels: dict[frozenset[str], list[CaseReport]] = defaultdict(list)
    same_modality: dict[str, list[tuple[str, CaseReport]]] = defaultdict(list)
    for case in cases:
        if case.hashes:
            same_voxels[frozenset(case.hashes.values())].append(case)
        for modality, digest in case.hashes.items():
            same_modality[digest].append((modality, case))
    for (modality, first), *copies in same_modality.values():
        for copy, case in copies:
            # Copies within a case are found when it is read, whole copies below.
            if case is not first and case.hashes != first.hashes:
                message = (
                    f"its {copy} has the same voxels as {modality} of {first.case_id}: one of the "
                    "files was copied to the wrong case; restore it, or leave both cases out"
                )
                case.findings.append(Finding("warning", "copied modality", message))
    for duplicates in same_voxels.values():
        for case in duplicates:
            others = [other for other in duplicates if other is not case]
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


def _mark_exchanged(cases: Sequence[CaseReport]) -> None:
    """Warn of a case whose tumour looks in one modality as most others' do in another."""
    if len(cases) < _ENOUGH_CASES or len({case.modalities for case in cases}) > 1:
        return
    odd: list[tuple[float, int, str]] = []
    for first, second in combinations(cases[0].contrast, 2):
        found = np.array([case.contrast[first] - case.contrast[second] for case in cases])
        usual = np.median(found)
        # 1.4826 times the median deviation is the standard deviation of normal values.
        spread = max(1.4826 * np.median(abs(found - usual)), _LEAST_SPREAD)
        against = (-2 * found * usual / spread**2).tolist()
        odd += [(value, n, f"{first} and {second}") for n, value in enumerate(against)]
    likeliest = {n: names for value, n, names in sorted(odd) if value > SPEAKS_AGAINST}
    for n, names in likeliest.items():
        message = (
            f"the tumour looks in {names} as that of most cases does the other way round: files of "
            "this case seem to be exchanged; look at all, and give them the right names"
        )
        cases[n].findings.append(Finding("warning", "exchanged modalities", message))


def _mark_odd_grids(cases: Sequence[CaseReport]) -> list[Finding]:
    findings = []
    spacings = {
        case.case_id: tuple(round(size, 3) for size in case.spacing or ()) for case in cases
    }
    usual, sizes = _majority(spacings), sorted(set(spacings.values()))
    if len(sizes) > 1 and usual is None:
        smallest, largest = format_sizes(sizes[0]), format_sizes(sizes[-1])
        message = (
            f"there are {len(sizes)} voxel sizes, from {smallest} to {largest} mm (depth x height "
            "x width), and none has the majority: a network sees voxels, not mm; bring all cases "
            "to one with data.spacing"
        )
        findings.append(Finding("warning", "spacing", message))
    shapes = {case.case_id: case.shape or () for case in cases}
    usual_shape = _majority(shapes)
    for case in cases:
        spacing, shape = spacings[case.case_id], shapes[case.case_id]
        if usual not in (None, spacing):
            message = (
                f"voxels of {format_sizes(spacing)} mm (depth x height x width), but most cases "
                f"have {format_sizes(usual or ())}: bring all cases to one with "
                f"data.spacing=[{','.join(f'{size:g}' for size in usual or ())}]"
            )
            case.findings.append(Finding("warning", "spacing", message))
        elif usual_shape not in (None, shape):
            message = (
                f"{format_sizes(shape)} voxels (depth x height x width), but most cases have "
                f"{format_sizes(usual_shape or ())}: see that the scan is whole"
            )
            case.findings.append(Finding("warning", "size", message))
    return findings


def _majority(values: dict[str, V]) -> V | None:
    """Return the value that more than half of the cases have, or None."""
    if not values:
        return None
    value, count = Counter(values.values()).most_common(1)[0]
    return value if 2 * count > len(values) else None


def patient_findings(experiment: Experiment, patients: Mapping[str, str]) -> list[Finding]:
    """Check that no split has a patient on two sides.

    Args:
        experiment: The experiment; `split.file` and the splits beside its store are checked.
        patients: Case id -> patient id.
    """
    findings = []
    if not knows_patients(experiment.data):
        message = (
            f"data.layout={experiment.data.layout} does not say which pictures are of one "
            "patient, so each counts as a patient of its own: neighbouring slices of one tumour "
            "may stand in training and in test, and scores come out too high; set "
            "data.patient_pattern or data.patient_csv"
        )
        findings.append(Finding("warning", "patients", message))
    elif experiment.data.patient_pattern is None and experiment.data.patient_csv is None:
        unclear = unclear_patients(patients)
        findings += [Finding("warning", "patients", unclear)] if unclear else []
    own = experiment.split.file
    beside = sorted((experiment.store_root / FOLDER).glob("*.json"))
    for path in beside if own is None else [own, *beside]:
        findings += _split_findings(path, patients, csv=path == own)
    return findings


def _split_findings(path: Path, patients: Mapping[str, str], *, csv: bool) -> Iterator[Finding]:
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


def _inspect_record(root: Path, row: CaseRow) -> CaseReport:
    report = _manifest_report(row)
    damage = is_damaged(root, row)
    if damage is not None:
        report.findings.append(Finding("error", "damaged", damage))
        return report
    where = f"{root / row.shard}: the record at byte {row.offset}"
    try:
        stored = decode(read_record(root / row.shard, row.offset, row.case_id))
        differences = list(_compare_with_manifest(stored, row))
    except Exception as error:
        # The checksum is right, so the fault lies in the code that wrote the record or reads it.
        message = f"{where} cannot be decoded ({type(error).__name__}: {error})"
        report.findings.append(Finding("error", "payload", message))
        return report
    if differences:
        message = f"{where} does not agree with the manifest: {'; '.join(differences)}"
        report.findings.append(Finding("error", "manifest", message))
    return report


def _compare_with_manifest(stored: StoredCase, row: CaseRow) -> Iterator[str]:
    case = stored.case
    pairs = {
        "case_id": (case.case_id, row.case_id),
        "patient_id": (case.patient_id, row.patient_id),
        "shape": (case.image.shape, row.shape),
        "full shape": (stored.full_shape, row.full_shape),
        "crop offset": (stored.offset, row.crop_offset),
        "voxels": (_count_voxels(case), row.voxels),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            yield f"{name} is {found} there and {expected} in the manifest"
    if not np.isfinite(case.image).all():
        yield "the image holds NaN or infinite values"


def _report_killed_record(root: Path, row: CaseRow) -> CaseReport:
    report = _manifest_report(row)
    message = f"{root / row.shard}, byte {row.offset}: the process that read it was killed"
    report.findings.append(Finding("error", "crash", message))
    return report


def _manifest_report(row: CaseRow) -> CaseReport:
    return CaseReport(
        case_id=row.case_id,
        patient_id=row.patient_id,
        files=1,
        bytes=row.payload_bytes,
        shape=row.shape[:3],
        spacing=row.spacing,
        voxels=row.voxels,
    )
