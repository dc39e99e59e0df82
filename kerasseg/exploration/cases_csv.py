"""`cases.csv`: a row per case."""

import csv
import io
from pathlib import Path

from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.intensities import PERCENTILES
from kerasseg.write_aside import write_aside

_AXES = ("depth", "height", "width")


def write_cases_csv(data_set: DataSet, path: Path) -> None:
    """Write every case, then those left out with the reason; what is not known stays empty."""
    rows = [_row(data_set, index) for index in range(len(data_set.cases))]
    rows += [
        {"case_id": case.case_id, "patient_id": case.patient_id, "left_out": case.reason}
        for case in data_set.left_out
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "left_out"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with write_aside(path, "--output") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _row(data_set: DataSet, index: int) -> dict[str, object]:
    case = data_set.cases[index]
    row: dict[str, object] = {"case_id": case.case_id, "patient_id": case.patient_id}
    row |= zip(_AXES, case.shape, strict=True)
    spacing = case.spacing if data_set.knows_space else ("", "", "")
    row |= {f"spacing_{axis}_mm": v for axis, v in zip(_AXES, spacing, strict=True)}
    counts = {"brain": case.brain_voxels, "tumour": case.tumour_voxels}
    counts |= {name: (case.voxels or {}).get(name) for name in data_set.classes}
    row |= {f"{name}_voxels": n for name, n in counts.items()}
    if data_set.knows_space:
        row |= {
            f"{name}_ml": None if n is None else f"{n * case.millilitres:.4f}"
            for name, n in counts.items()
        }
    row["tumour_components"] = case.components
    for axis, place in zip(_AXES, case.centre or (None,) * 3, strict=True):
        row[f"tumour_centre_{axis}"] = None if place is None else f"{place:.4f}"
    for modality, found in case.intensities.items():
        row[f"{modality}_mean"] = f"{found.mean:.6g}"
        row[f"{modality}_std"] = f"{found.deviation:.6g}"
        for level, value in zip(PERCENTILES, found.percentiles, strict=True):
            row[f"{modality}_p{level}"] = f"{value:.6g}"
    return row
