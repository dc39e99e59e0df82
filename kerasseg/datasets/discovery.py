"""Finding the cases of a data set, whatever its layout."""

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import LAYOUTS
from kerasseg.datasets.case import CaseSource, unique_sources
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti import pattern_regex
from kerasseg.errors import UserError


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find all cases of `data.root` in `data.layout`, without opening them, sorted by case id.

    A mistake in one case makes a `BrokenSource` of it; so do several cases of the same id.

    Raises:
        UserError: There is no case at all (the message names a layout that fits, if there is one),
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
    return sources


def _of_patient(source: Any, patient_id: str) -> CaseSource:
    return dataclasses.replace(source, patient_id=patient_id)


def _patients_of_csv(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.patient_csv: {path} cannot be read: {error}.") from None
    found = list(rows[0]) if rows else []
    if not {"case_id", "patient_id"} <= set(found):
        raise UserError(
            f"{path}: expected the columns case_id and patient_id, found "
            f"{', '.join(found) or 'nothing'}."
        )
    return {row["case_id"].strip(): row["patient_id"].strip() for row in rows if row["patient_id"]}
