"""Looking at a data set before it is used.

Which cases are drawn as examples.

`explore.html`: the data set on one page.
"""

import base64
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from kerasseg.anatomy import MODALITY_TITLES
from kerasseg.config.experiment import Experiment
from kerasseg.data_report.figures import (
    draw_class_volumes,
    draw_example,
    draw_intensities,
    draw_slice_presence,
    draw_tumour_places,
    draw_tumour_sizes,
)
from kerasseg.data_report.statistics import (
    CaseStatistics,
    DataSet,
    LeftOut,
    measure_cases,
    suggest_class_weights,
    write_cases_csv,
)
from kerasseg.datasets.case import CaseSource
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.discovery import discover, knows_patients
from kerasseg.errors import UserError, storage_error
from kerasseg.files import atomic_write
from kerasseg.page import number, to_png
from kerasseg.progress import track

EXAMPLES = ("smallest", "median", "largest", "without_tumour")
"""Every name an example can have."""


@dataclass(frozen=True)
class Example:
    """A case and what it is an example of: one of `EXAMPLES`, and in words."""

    name: str
    title: str
    case: CaseStatistics


def choose_examples(data_set: DataSet) -> list[Example]:
    """The smallest, the median and the largest tumour, then the first case without one.

    Where no case has a tumour, or no segmentation at all, brains take the place of tumours.
    """
    tumours = data_set.with_tumour
    if tumours:
        ranked = sorted(tumours, key=data_set.volume)
        chosen = _three(ranked, "tumour")
        chosen += [
            Example("without_tumour", "without tumour", case)
            for case in data_set.labelled
            if not case.tumour_voxels
        ][:1]
        return chosen
    ranked = sorted(data_set.cases, key=lambda case: data_set.in_unit(case, case.brain_voxels))
    return _three(ranked, "brain")


def _three(ranked: list[CaseStatistics], what: str) -> list[Example]:
    places = {"smallest": 0, "median": (len(ranked) - 1) // 2, "largest": len(ranked) - 1}
    if len(ranked) < 3:
        places.pop("median")
    if len(ranked) == 1:
        return [Example("median", f"the only {what}", ranked[0])]
    return [Example(name, f"{name} {what}", ranked[place]) for name, place in places.items()]


_LONGEST_TABLE = 200
"""Cases up to which the page lists all of them."""
_EXTREMES = 10
_COUNTED = 12
"""Rows of a table of counts."""


def write_page(
    experiment: Experiment,
    data_set: DataSet,
    examples: Sequence[Example],
    figures: Mapping[str, bytes],
    path: Path,
) -> None:
    """Write the page with its `figures` (name -> PNG) inside it, so that it can be sent alone."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["by"] = lambda sizes: " x ".join(f"{size:.4g}" for size in sizes)
    environment.filters["percent"] = lambda share: f"{100 * share:.3g}\N{NO-BREAK SPACE}%"
    environment.filters["number"] = number
    listed, tables = _listed(data_set)
    text = environment.get_template("explore.html").render(
        experiment=experiment,
        data_set=data_set,
        examples=examples,
        figures={name: _data_uri(png) for name, png in figures.items()},
        patients=_patients(data_set),
        shapes=_counts(case.shape for case in data_set.cases),
        spacings=_counts(tuple(round(s, 3) for s in case.spacing) for case in data_set.cases),
        intensities=_intensities(data_set),
        weights=suggest_class_weights(
            data_set.voxels, experiment.data.classes, experiment.model.target, experiment.loss
        ),
        tables=tables,
        listed=listed,
    )
    with atomic_write(path, "--output") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _patients(data_set: DataSet) -> int | None:
    """Patients of the cases that could be read, or None where they cannot be told."""
    if not knows_patients(data_set.settings):
        return None
    return len({case.patient_id for case in data_set.cases})


def _counts(values: Iterable[tuple[float, ...]]) -> list[tuple[tuple[float, ...] | None, int]]:
    """Values and how many cases have them, the most frequent first; None: all the others."""
    found = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[tuple[float, ...] | None, int]] = list(found[:_COUNTED])
    rest = sum(count for _, count in found[_COUNTED:])
    return [*rows, (None, rest)] if rest else rows


def _intensities(data_set: DataSet) -> list[dict[str, Any]]:
    """Per modality: the range over cases of the 1st, 50th and 99th percentile."""
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


def _listed(data_set: DataSet) -> tuple[int, dict[str, list[Any]]]:
    """How many cases the page lists, and title -> those cases."""
    if len(data_set.cases) <= _LONGEST_TABLE:
        return len(data_set.cases), {"": list(data_set.cases)}
    if data_set.with_tumour:
        what, ranked = "tumours", sorted(data_set.with_tumour, key=data_set.volume)
    else:
        what = "brains"
        ranked = sorted(data_set.cases, key=lambda c: data_set.in_unit(c, c.brain_voxels))
    tables = {
        f"The {_EXTREMES} smallest {what}": ranked[:_EXTREMES],
        f"The {_EXTREMES} largest {what}": ranked[-_EXTREMES:],
    }
    return sum(map(len, tables.values())), tables


_OF_TUMOURS = ("class_volumes", "tumour_sizes", "tumour_places", "slice_presence")


def explore(experiment: Experiment, folder: Path) -> Path:
    """Read every case, and write `explore.html`, its figures and `cases.csv` into `folder`.

    A case that cannot be read is named on the page and left out. Returns the page's path. Raises
    `UserError` when there is no case that can be read, and when `folder` cannot be written.
    """
    sources = discover(experiment.data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {folder}", "--output") from error
    data_set = _data_set(experiment, sources)
    examples = choose_examples(data_set)
    figures = {
        name: to_png(figure) for name, figure in _draw(experiment, data_set, examples, sources)
    }
    for name, png in figures.items():
        with atomic_write(folder / f"{name}.png", "--output") as temporary:
            temporary.write_bytes(png)
    _remove_old(folder, figures.keys())
    write_cases_csv(data_set, folder / "cases.csv")
    page = folder / "explore.html"
    write_page(experiment, data_set, examples, figures, page)
    return page


def _data_set(experiment: Experiment, sources: Sequence[CaseSource]) -> DataSet:
    cases, left_out = [], []
    measured = measure_cases(experiment, sources)
    for found in track(measured, len(sources), "Looking at cases"):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            cases.append(found)
    if not cases:
        raise UserError(
            f"data.root: none of the {len(sources)} case(s) below {experiment.data.root} can be "
            f"read. The first, {left_out[0].case_id}: {left_out[0].reason}"
        )
    return DataSet(cases, left_out, experiment.data)


def _draw(
    experiment: Experiment,
    data_set: DataSet,
    examples: Sequence[Example],
    sources: Sequence[CaseSource],
) -> Iterator[tuple[str, Figure]]:
    """Every figure that the data set has something for."""
    yield "intensities", draw_intensities(data_set)
    if data_set.with_tumour:
        yield "class_volumes", draw_class_volumes(data_set)
        yield "tumour_sizes", draw_tumour_sizes(data_set)
        yield "tumour_places", draw_tumour_places(data_set)
        if data_set.sliced:
            yield "slice_presence", draw_slice_presence(data_set)
    by_id = {source.case_id: source for source in sources}
    for example in examples:
        case = read_case(by_id[example.case.case_id], experiment.data)
        title = f"{example.title}: {case.case_id}"
        tumour = example.case.tumour_voxels
        if tumour:
            title += f" ({number(data_set.in_unit(example.case, tumour))} {data_set.unit})"
        yield (
            f"example_{example.name}",
            draw_example(case, title, knows_space=data_set.knows_space),
        )


def _remove_old(folder: Path, written: Collection[str]) -> None:
    """Remove figures of an earlier page that this one has no use for."""
    for name in {*_OF_TUMOURS, *(f"example_{name}" for name in EXAMPLES)} - set(written):
        (folder / f"{name}.png").unlink(missing_ok=True)
