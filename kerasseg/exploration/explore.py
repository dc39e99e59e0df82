"""Looking at a data set before it is used."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from kerasseg.config import Experiment
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.read_case import read_case
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError, storage_error
from kerasseg.exploration.cases_csv import write_cases_csv
from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.examples import EXAMPLES, Example, choose_examples
from kerasseg.exploration.figures.class_volumes import draw_class_volumes
from kerasseg.exploration.figures.example import draw_example
from kerasseg.exploration.figures.intensities import draw_intensities
from kerasseg.exploration.figures.png import to_png
from kerasseg.exploration.figures.slice_presence import draw_slice_presence
from kerasseg.exploration.figures.tumour_places import draw_tumour_places
from kerasseg.exploration.figures.tumour_sizes import draw_tumour_sizes
from kerasseg.exploration.measure_cases import LeftOut, measure_cases
from kerasseg.exploration.number import number
from kerasseg.exploration.page import write_page
from kerasseg.progress import track
from kerasseg.write_aside import write_aside

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
        with write_aside(folder / f"{name}.png", "--output") as temporary:
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
