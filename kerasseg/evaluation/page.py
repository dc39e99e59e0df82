"""What the pages of evaluations are made of: templates, figures inside them."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from kerasseg.evaluation.drawing import Drawing
from kerasseg.evaluation.metric_name import metric_name
from kerasseg.evaluation.number import in_words, interval_in_words
from kerasseg.write_aside import write_aside

_HALF = 7.7
"""Inches up to which two figures stand side by side."""


def environment() -> jinja2.Environment:
    """Of the templates beside this file, with the filters `interval`, `number` and `metric`."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["interval"] = interval_in_words
    found.filters["number"] = in_words
    found.filters["metric"] = metric_name
    return found


def write_figures(
    folder: Path, drawings: Iterable[Drawing], setting: str
) -> dict[str, list[dict[str, str]]]:
    """Write each as `<name>.png`; returns, by section, what a template needs to hold them."""
    sections: dict[str, list[dict[str, str]]] = {}
    for drawing in drawings:
        png = to_png(drawing.figure)
        with write_aside(folder / f"{drawing.name}.png", setting) as temporary:
            temporary.write_bytes(png)
        entry = {"name": drawing.name, "caption": drawing.caption, "source": data_uri(png)}
        entry["kind"] = "half" if drawing.figure.get_figwidth() <= _HALF else "whole"
        sections.setdefault(drawing.section, []).append(entry)
    return sections


def to_png(figure: Figure) -> bytes:
    """Draw a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
