"""Finding the cases of a data set, whatever its layout."""

import csv
import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg.config.data import DataSettings
from kerasseg.datasets import brats_h5, brats_nifti, dataset_json, lgg, nifti, phantom, pictures
from kerasseg.datasets.case import CaseSource, unique_sources
from kerasseg.datasets.folders import files_below
from kerasseg.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How one layout is read.

    discover:       finds its cases below `data.root`
    files:          the files it looks for, for messages
    recognised:     it can be recognised without further settings
    knows_patients: names of files or folders tell which cases are of one patient
    """

    discover: Callable[[DataSettings], Sequence[CaseSource]]
    files: str
    recognised: bool = True
    knows_patients: bool = True


LAYOUTS = {
    "phantom": Layout(phantom.discover, "generated", recognised=False),
    "brats_nifti": Layout(brats_nifti.discover, "<case>_flair.nii.gz or <case>-t2f.nii.gz"),
    "brats_h5": Layout(brats_h5.discover, "volume_<id>_slice_<s>.h5"),
    "msd": Layout(dataset_json.discover_msd, "dataset.json and the 4-D NIfTI files that it names"),
    "nnunet": Layout(dataset_json.discover_nnunet, "dataset.json and imagesTr/<case>_0000.nii.gz"),
    "lgg": Layout(lgg.discover, "<patient>_<n>.tif and <patient>_<n>_mask.tif"),
    "image_pairs": Layout(
        pictures.discover,
        "pictures in data.pairs.images below it",
        recognised=False,
        knows_patients=False,
    ),
    "nifti": Layout(nifti.discover, "the patterns of data.files", recognised=False),
}


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find all cases of `data.root` in `data.layout`, without opening them, sorted by case id.

    A mistake in one case makes a `BrokenSource` of it; so do several cases of the same id.

    Raises:
        UserError: There is no case at all (the message names a layout that fits, if there is one),
            or `data.patient_pattern` or `data.patient_csv` leaves a case out.
    """
    layout = LAYOUTS[settings.layout]
    sources = unique_sources(layout.discover(settings))
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
    """Describe what lies below `data.root`; for `nifti` also how many files each pattern fits."""
    if settings.root is None or not settings.root.is_dir():
        return "nothing"
    files = [
        (folder / name).relative_to(settings.root).as_posix()
        for folder, names in files_below(settings.root)
        for name in names
    ]
    shown = f"{len(files)} file(s)" + (f", such as {', '.join(sorted(files)[:3])}" if files else "")
    if settings.layout != "nifti":
        return shown
    patterns = {f"data.files.{name}": settings.files[name] for name in settings.modalities}
    if settings.segmentation is not None:
        patterns["data.segmentation"] = settings.segmentation
    fits = {
        key: sum(bool(nifti.pattern_regex(pattern).fullmatch(name)) for name in files)
        for key, pattern in patterns.items()
    }
    counts = ", ".join(f"{key} {patterns[key]!r} fits {number}" for key, number in fits.items())
    return f"{shown}; of these {counts}"


def knows_patients(settings: DataSettings) -> bool:
    """Return whether the patient of a case is known; if not, a split may leak."""
    given = settings.patient_pattern is not None or settings.patient_csv is not None
    return LAYOUTS[settings.layout].knows_patients or given


def _fits(layout: str, settings: DataSettings) -> bool:
    other = settings.model_copy(update={"layout": layout})
    try:
        return len(LAYOUTS[layout].discover(other)) > 0
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
