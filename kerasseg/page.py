"""What the pages of evaluations are made of: templates, figures inside them.

A figure of a report with its words.

Numbers as a table shows them.

Names of metrics as people write them.

A figure as the bytes of a PNG.

Numbers as a person writes them.
"""

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from kerasseg.files import atomic_write
from kerasseg.metrics.case_metrics import UNITS


@dataclass(frozen=True)
class Drawing:
    """`section` is the heading under which it stands, `caption` says how to read it."""

    name: str
    section: str
    caption: str
    figure: Figure


NO_NUMBER = "\N{EN DASH}"


def in_words(value: float | None) -> str:
    """Three decimals below 10, fewer above; a dash for what does not exist."""
    if value is None or math.isnan(value):
        return NO_NUMBER
    size = abs(value)
    words = f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return words if float(words) else words.removeprefix("-")


def interval_in_words(interval: dict[str, Any] | None) -> str:
    """The mean and, in small, its interval, of `means_as_json`."""
    if interval is None:
        return NO_NUMBER
    mean = in_words(interval["mean"])
    if interval["low"] is None:
        return mean
    low, high = in_words(interval["low"]), in_words(interval["high"])
    return mean + Markup("<small>{} to {}</small>").format(low, high)


_SPELLED = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "assd": "ASSD"}


def metric_name(metric: str, *, unit: bool = True) -> str:
    """Such as "Lesion-wise HD95 [mm]" for `lesion_wise_hd95`."""
    words = " ".join(_SPELLED.get(word, word) for word in metric.split("_"))
    words = words.replace("lesion wise", "lesion-wise")
    words = words[0].upper() + words[1:]
    return f"{words} [{UNITS[metric]}]" if unit and UNITS[metric] else words


_HALF = 7.7
"""Inches up to which two figures stand side by side."""


def environment() -> jinja2.Environment:
    """Of the templates of this package, with the filters `interval`, `number` and `metric`."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
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
        with atomic_write(folder / f"{drawing.name}.png", setting) as temporary:
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


def number(value: float) -> str:
    """Three digits, or all of a large number before the point: 0.0123, 12.3, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
