"""`explore.html`: the data set on one page."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kerasseg.anatomy import MODALITY_TITLES
from kerasseg.config import Experiment
from kerasseg.datasets.discovery import knows_patients
from kerasseg.exploration.class_weights import suggest_class_weights
from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.examples import Example
from kerasseg.exploration.number import number
from kerasseg.write_aside import write_aside

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
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
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
    with write_aside(path, "--output") as temporary:
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
