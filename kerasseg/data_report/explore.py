"""`kerasseg explore`: the data set on one page, with figures and `cases.csv`."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.anatomy import MODALITY_TITLES
from kerasseg.config.experiment import Experiment
from kerasseg.data_report import statistics
from kerasseg.data_report.figures import (
    draw_class_volumes,
    draw_example,
    draw_intensities,
    draw_slice_presence,
    draw_tumour_places,
    draw_tumour_sizes,
)
from kerasseg.datasets.case import CaseSource
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.discovery import discover, knows_patients
from kerasseg.errors import UserError
from kerasseg.files import make_folder, spreadsheet_row, write_text
from kerasseg.page import Drawing, format_percent, format_significant, write_figures, write_page
from kerasseg.progress import track

_OPTION = "--output"
_AXES = ("depth", "height", "width")
_EXAMPLES = ("smallest", "median", "largest", "without_tumour")
"""Every name that an example can have."""
_TUMOUR_FIGURES = ("class_volumes", "tumour_sizes", "tumour_places", "slice_presence")
_LONGEST_TABLE = 200
"""Cases up to which the page lists all of them."""
_EXTREMES = 10
"""Smallest and largest cases that are listed otherwise."""
_MOST_COUNTS = 12
"""Rows of a table of counts."""

_PLACES_IN_PICTURES = (
    "Each dot is a tumour's centre of mass within the box around all values other than 0. A cloud "
    "on one side teaches a network to look there."
)
_SLICE_PRESENCE = (
    "Heights at which no slice has tumour are heights that a 2-D network sees as background only. "
    "Over all heights {} of the slices have tumour"
)
_EMPTY_SHARE = "; pipeline.slices.empty_share sets how many without are trained on"


@dataclass(frozen=True)
class Example:
    """A case that is drawn.

    Attributes:
        name: Which example it is: smallest, median, largest or without_tumour.
        title: The same for people.
    """

    name: str
    title: str
    case: statistics.CaseStatistics


def explore(experiment: Experiment, folder: Path) -> Path:
    """Read every case and write `explore.html`, its figures and `cases.csv` into a folder.

    A case that cannot be read is left out and named on the page. Returns the path of the page.
    Raises `UserError` if no case can be read, or if the folder cannot be written to.
    """
    sources = discover(experiment.data)
    make_folder(folder, _OPTION)
    data_set = _measure(experiment, sources)
    examples = choose_examples(data_set)
    figures = write_figures(folder, _draw(experiment, data_set, examples, sources), _OPTION)
    written = {entry["name"] for part in figures.values() for entry in part}
    for name in {*_TUMOUR_FIGURES, *(f"example_{name}" for name in _EXAMPLES)} - written:
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier page
    write_cases_csv(data_set, folder / "cases.csv")
    listed, tables = _list_cases(data_set)
    patients = {case.patient_id for case in data_set.cases}
    return write_page(
        folder / "explore.html",
        "explore.html",
        _OPTION,
        filters={"shape": lambda sizes: " x ".join(f"{size:.4g}" for size in sizes)},
        experiment=experiment,
        data_set=data_set,
        figure_entries=figures,
        patients=len(patients) if knows_patients(data_set.settings) else None,
        shapes=_count_values(case.shape for case in data_set.cases),
        spacings=_count_values(tuple(round(s, 3) for s in case.spacing) for case in data_set.cases),
        intensities=_intensity_ranges(data_set),
        weights=statistics.suggest_class_weights(
            data_set.voxels, experiment.data.classes, experiment.model.target, experiment.loss
        ),
        tables=tables,
        listed=listed,
    )


def choose_examples(data_set: statistics.DataSet) -> list[Example]:
    """Choose the smallest, the median and the largest tumour, and the first case without one.

    If no case has a tumour or a segmentation, the brains are compared instead.
    """
    if not data_set.with_tumour:
        return _three(_by_size(data_set), "brain")
    healthy = [case for case in data_set.labelled if not case.tumour_voxels]
    return [
        *_three(_by_size(data_set), "tumour"),
        *(Example("without_tumour", "without tumour", case) for case in healthy[:1]),
    ]


def _by_size(data_set: statistics.DataSet) -> list[statistics.CaseStatistics]:
    """Sort the cases with a tumour by its size, or all cases by their brains without any tumour."""
    if data_set.with_tumour:
        return sorted(data_set.with_tumour, key=data_set.volume)
    return sorted(data_set.cases, key=lambda case: data_set.in_unit(case, case.brain_voxels))


def _three(ranked: list[statistics.CaseStatistics], noun: str) -> list[Example]:
    places = {"smallest": 0, "median": (len(ranked) - 1) // 2, "largest": len(ranked) - 1}
    if len(ranked) < 3:
        places.pop("median")
    if len(ranked) == 1:
        return [Example("median", f"the only {noun}", ranked[0])]
    return [Example(name, f"{name} {noun}", ranked[place]) for name, place in places.items()]


def _measure(experiment: Experiment, sources: Sequence[CaseSource]) -> statistics.DataSet:
    cases, left_out = [], []
    measured = statistics.measure_cases(experiment, sources)
    for found in track(measured, len(sources), "Looking at cases"):
        if isinstance(found, statistics.LeftOut):
            left_out.append(found)
        else:
            cases.append(found)
    if not cases:
        raise UserError(
            f"data.root: none of the {len(sources)} case(s) below {experiment.data.root} can be "
            f"read. The first, {left_out[0].case_id}: {left_out[0].reason}"
        )
    return statistics.DataSet(cases, left_out, experiment.data)


def _draw(
    experiment: Experiment,
    data_set: statistics.DataSet,
    examples: Sequence[Example],
    sources: Sequence[CaseSource],
) -> Iterator[Drawing]:
    """Yield every figure that the data set has something for."""
    by_id = {source.case_id: source for source in sources}
    for example in examples:
        case = read_case(by_id[example.case.case_id], experiment.data)
        title = f"{example.title}: {case.case_id}"
        tumour = example.case.tumour_voxels
        if tumour:
            size = format_significant(data_set.in_unit(example.case, tumour))
            title += f" ({size} {data_set.unit})"
        figure = draw_example(case, title, knows_space=data_set.knows_space)
        yield Drawing(f"example_{example.name}", "examples", figure)
    if data_set.with_tumour:
        yield Drawing("class_volumes", "classes", draw_class_volumes(data_set))
        yield Drawing("tumour_sizes", "tumours", draw_tumour_sizes(data_set))
        caption = _PLACES_IN_PICTURES if data_set.flat else ""
        yield Drawing("tumour_places", "tumours", draw_tumour_places(data_set), caption)
        if data_set.sliced:
            caption = _SLICE_PRESENCE.format(format_percent(data_set.tumour_slices))
            # Volumes of a 3-D network have no section `pipeline.slices`.
            caption += f"{_EMPTY_SHARE if experiment.model.dimensions == 2 else ''}."
            yield Drawing("slice_presence", "tumours", draw_slice_presence(data_set), caption)
    yield Drawing("intensities", "intensities", draw_intensities(data_set))


def _count_values(
    values: Iterable[tuple[float, ...]],
) -> list[tuple[tuple[float, ...] | None, int]]:
    """Count how many cases have each value, the most frequent first.

    The value of the last row is None if the row stands for all others.
    """
    found = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[tuple[float, ...] | None, int]] = list(found[:_MOST_COUNTS])
    rest = sum(count for _, count in found[_MOST_COUNTS:])
    return [*rows, (None, rest)] if rest else rows


def _intensity_ranges(data_set: statistics.DataSet) -> list[dict[str, Any]]:
    """Return for each modality the range over cases of the 1st, 50th and 99th percentile."""
    rows = []
    for modality in data_set.settings.modalities:
        percentiles = np.array([c.intensities[modality].percentiles for c in data_set.cases])
        rows.append(
            {
                "modality": MODALITY_TITLES.get(modality, modality),
                "ranges": list(zip(percentiles.min(axis=0), percentiles.max(axis=0), strict=True)),
            }
        )
    return rows


def _list_cases(data_set: statistics.DataSet) -> tuple[int, dict[str, list[Any]]]:
    """Return how many cases the page lists, and the cases by the title of their table."""
    if len(data_set.cases) <= _LONGEST_TABLE:
        return len(data_set.cases), {"": list(data_set.cases)}
    noun, ranked = "tumours" if data_set.with_tumour else "brains", _by_size(data_set)
    tables = {
        f"The {_EXTREMES} smallest {noun}": ranked[:_EXTREMES],
        f"The {_EXTREMES} largest {noun}": ranked[-_EXTREMES:],
    }
    return sum(map(len, tables.values())), tables


def write_cases_csv(data_set: statistics.DataSet, path: Path) -> None:
    """Write a row per case, then the cases left out with the reason; unknown cells are empty."""
    rows = [_csv_row(data_set, index) for index in range(len(data_set.cases))]
    rows += [
        {"case_id": case.case_id, "patient_id": case.patient_id, "left_out": case.reason}
        for case in data_set.left_out
    ]
    text = io.StringIO()
    columns = [*rows[0], "left_out"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(spreadsheet_row(row.get(name) for name in columns) for row in rows)
    write_text(path, text.getvalue(), _OPTION)


def _csv_row(data_set: statistics.DataSet, index: int) -> dict[str, object]:
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
        for level, value in zip(statistics.PERCENTILES, found.percentiles, strict=True):
            row[f"{modality}_p{level}"] = f"{value:.6g}"
    row["notes"] = "; ".join(case.notes)
    return row
