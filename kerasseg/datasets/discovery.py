"""Finding the cases of a data set, whatever its layout."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import LAYOUTS
from kerasseg.datasets.case import CaseSource, unique_sources
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti_patterns import pattern_regex
from kerasseg.errors import UserError
from kerasseg.files import read_csv_rows

_TIME_POINT = re.compile(
    r"""
      (?P<bids>   sub-[a-z0-9]+)_.*                            # sub-01_ses-2
    | (?P<number> .*[a-z]-\d{5})-\d{3}                         # BraTS-GLI-00005-101
    | (?P<known>  (?:brats-[a-z]+(?:-rt)?-|upenn-gbm-|rhuh-)\d+)[-_]\d+
    | (?P<named>  .*\d.*?)[-_.](?:
          (?:ses|session|visit|scan|study|mri?|exam|tp|time[-_]?point|time|t|week|month|day|year
            |fu|follow[-_]?up)[-_]?\d+[a-z]?(?:[-_]\d{1,2})?   # Patient-007_week-044-1
        | (?:[vmwy]\d{1,2} | d\d{1,4})                        # 002_S_0295_m06, OAS30001_MR_d0129
        | (?:baseline | bl | follow[-_]?up | fu | intra[-_]?op | (?:re)?(?:scan|test)
            | (?:pre|post)(?:[-_]?(?:op|rt))?) (?:[-_]?\d+)?   # ReMIND-001_preop
        | (?:(?:19|20)\d\d([-_.]?)\d\d\5\d\d                # TCGA-02-0006_1996.08.23
            | \d\d[-_.]\d\d[-_.](?:19|20)\d\d)(?:[-_T]\d+)?
      )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Names of a scan that is one of several of a patient; the first group that is there is the
patient. A patient's own name has a number in it."""

_ONE_OF_SEVERAL = re.compile(r"(?P<patient>[^\d]*\d[A-Za-z0-9]*)(?:[-_. ].+)?")
_NO_PATIENT = re.compile(r"brats\d+_|tcga-\w\w-\w{4}$", re.IGNORECASE)
_MOST_SCANS = 30
"""A patient has no more scans."""


def patient_of(case_id: str) -> str:
    """Return the patient of a case by its name, which may end with a time point; else the name."""
    match = _TIME_POINT.fullmatch(case_id)
    names = match.groupdict().values() if match else ()
    return next((name for name in names if name), case_id)


def unclear_patients(patients: Mapping[str, str]) -> str | None:
    """Say that names look like several scans of one patient and are not understood; else nothing.

    Names do where several share all up to the first part with a number, as p01_a and p01_b, and
    others share another such part. Names that begin with a year or a centre do not count.
    `patients` is case id -> patient id.
    """
    groups: dict[str, list[str]] = {}
    for case_id, patient_id in patients.items():
        match = _ONE_OF_SEVERAL.fullmatch(case_id)
        if match and case_id == patient_id and not _NO_PATIENT.match(case_id):
            groups.setdefault(match["patient"], []).append(case_id)
    several = [same for same in groups.values() if len(same) > 1]
    if len(groups) < 2 or not several or len(max(several, key=len)) > _MOST_SCANS:
        return None
    return (
        f"{several[0][0]} and {several[0][1]} look like scans of one patient, but each case counts "
        "as a patient of its own: say which are of one patient with data.patient_pattern, such as "
        "'^([^_]+)_', or data.patient_csv"
    )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find all cases of `data.root` in `data.layout`, without opening them, sorted by case id.

    A mistake in one case makes a `BrokenSource` of it; so do several cases of the same id. Raises
    `UserError` if there is no case at all (the message names a layout that fits, if there is one),
    or `data.patient_pattern` or `data.patient_csv` leaves a case out.
    """
    layout = settings.facts
    sources = unique_sources(layout.function("discover")(settings))
    if sources:
        return _with_patients(sources, settings)
    message = (
        f"data.root: no {settings.layout} case ({layout.files}) anywhere below {settings.root}, "
        f"which holds {_describe_files(settings)}"
    )
    for name, other in LAYOUTS.items():
        if other.recognised and name != settings.layout and _fits(name, settings):
            raise UserError(f"{message}, but there are {name} cases: set data.layout={name}.")
    raise UserError(f"{message}: set data.root to the folder that holds the cases.")


def _describe_files(settings: DataSettings) -> str:
    """Describe what lies below `data.root`, and how many files fit each pattern of a config."""
    if settings.root is None or not settings.root.is_dir():
        return "nothing"
    files = [
        (folder / name).relative_to(settings.root).as_posix()
        for folder, names in files_below(settings.root)
        for name in names
    ]
    shown = f"{len(files)} file(s)" + (f", such as {', '.join(sorted(files)[:3])}" if files else "")
    if "files" not in settings.facts.settings:
        return shown
    patterns = {f"data.files.{name}": settings.files[name] for name in settings.modalities}
    if settings.segmentation is not None:
        patterns["data.segmentation"] = settings.segmentation
    fits = {
        key: sum(bool(pattern_regex(pattern).fullmatch(name)) for name in files)
        for key, pattern in patterns.items()
    }
    counts = ", ".join(f"{key} {patterns[key]!r} fits {number}" for key, number in fits.items())
    return f"{shown}; of these {counts}"


def knows_patients(settings: DataSettings) -> bool:
    """Return whether the patient of a case is known; if not, a split may leak."""
    given = settings.patient_pattern is not None or settings.patient_csv is not None
    return settings.facts.knows_patients or given


def _fits(layout: str, settings: DataSettings) -> bool:
    other = settings.model_copy(update={"layout": layout})
    try:
        return len(other.facts.function("discover")(other)) > 0
    except UserError:
        return True  # the files are there, if not in order


def _with_patients(sources: list[CaseSource], settings: DataSettings) -> list[CaseSource]:
    if settings.patient_csv is not None:
        patients = _patients_of_csv(settings.patient_csv)
        missing = [s.case_id for s in sources if s.case_id not in patients]
        if missing:
            raise UserError(
                f"{settings.patient_csv}: has no row for {len(missing)} case(s), the first "
                f"{missing[0]}: add them, with the columns case_id and patient_id."
            )
        return [_of_patient(source, patients[source.case_id]) for source in sources]
    if settings.patient_pattern is not None:
        pattern = re.compile(settings.patient_pattern)
        result = []
        for source in sources:
            match = pattern.search(source.case_id)
            if not match or not match[1]:
                raise UserError(
                    f"data.patient_pattern {settings.patient_pattern!r} finds no patient in the "
                    f"case name {source.case_id!r}: change the pattern, or use data.patient_csv."
                )
            result.append(_of_patient(source, match[1]))
        return result
    if not settings.facts.knows_patients:
        return sources
    # A layout that knows the patient better has said so.
    told = [s.patient_id == s.case_id != patient_of(s.case_id) for s in sources]
    return [
        _of_patient(source, patient_of(source.case_id)) if better else source
        for source, better in zip(sources, told, strict=True)
    ]


def _of_patient(source: Any, patient_id: str) -> CaseSource:
    return dataclasses.replace(source, patient_id=patient_id)


def _patients_of_csv(path: Path) -> dict[str, str]:
    rows = read_csv_rows(path, "data.patient_csv")
    found = list(rows[0][1]) if rows else []
    if not {"case_id", "patient_id"} <= set(found):
        raise UserError(
            f"{path}: expected the columns case_id and patient_id, found "
            f"{', '.join(found) or 'nothing'}."
        )
    patients: dict[str, str] = {}
    for number, row in rows:
        case_id, patient_id = row["case_id"], row["patient_id"]
        if patient_id and patients.setdefault(case_id, patient_id) != patient_id:
            raise UserError(
                f"{path}, row {number}: {case_id} is of patient {patient_id}, but above of "
                f"{patients[case_id]}: keep one row."
            )
    return patients
