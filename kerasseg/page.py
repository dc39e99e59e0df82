"""HTML pages: the number formats, figures as PNG, and the templates that all pages share."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure

from kerasseg.files import write_bytes, write_text
from kerasseg.metrics.case_metrics import unit_of

_TEMPLATES = Path(__file__).parent / "templates"
MISSING = "\N{EN DASH}"
"""Stands where there is no number."""
_SPELLINGS = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "assd": "ASSD"}
_DPI = 110
_HALF_PAGE = 7.7
"""Width in inches up to which two figures stand side by side."""


def format_value(value: float | None) -> str:
    """Format a score with three decimals below 10 and fewer above, or a dash for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    size = abs(value)
    text = f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return text if float(text) else text.removeprefix("-")


def format_interval(interval: Mapping[str, Any] | None) -> str:
    """Format a mean and, in small type below it, its confidence interval.

    `interval` is a mapping with `mean`, `low` and `high`, as `means_as_json` gives it. `low` is
    None where there is no interval.
    """
    if interval is None:
        return MISSING
    mean = format_value(interval["mean"])
    if interval["low"] is None:
        return mean
    low, high = format_value(interval["low"]), format_value(interval["high"])
    return mean + Markup("<small>{} to {}</small>").format(low, high)


def format_significant(value: float) -> str:
    """Format a quantity with three significant digits, or as a whole number from 100 on.

    Examples are 0.0123, 12.3 and 12,345.
    """
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def format_percent(share: float) -> str:
    """Format a share from 0 to 1 in percent with three significant digits."""
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def format_metric_name(metric: str, *, unit: bool = True) -> str:
    """Format a metric's key for people: `lesion_wise_hd95` becomes "Lesion-wise HD95 [mm]"."""
    name = " ".join(_SPELLINGS.get(part, part) for part in metric.split("_"))
    name = name.replace("lesion wise", "lesion-wise")
    name = name[0].upper() + name[1:]
    return f"{name} [{unit_of(metric)}]" if unit and unit_of(metric) else name


@dataclass(frozen=True)
class Drawing:
    """A figure of a page.

    Attributes:
        name: Name of its PNG file, without the ending.
        section: Heading below which it stands.
        caption: How to read it; without one, what `templates/captions.yaml` has for its name.
    """

    name: str
    section: str
    figure: Figure
    caption: str = ""


def to_png(figure: Figure) -> bytes:
    """Draw a figure and return the bytes of the PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Return the address of an HTML image that contains the PNG itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def write_figures(
    folder: Path, drawings: Iterable[Drawing], setting: str
) -> dict[str, list[dict[str, str]]]:
    """Write each figure as `<name>.png`, one after the other so that only one is in memory.

    Returns, by section, what the templates need to show the figures.

    Args:
        folder: Existing folder of the PNG files.
        drawings: The figures, in the order of the page.
        setting: The option that an error message names, such as `--output`.
    """
    captions = yaml.safe_load((_TEMPLATES / "captions.yaml").read_text(encoding="utf-8"))
    sections: dict[str, list[dict[str, str]]] = {}
    for drawing in drawings:
        png = to_png(drawing.figure)
        write_bytes(folder / f"{drawing.name}.png", png, setting)
        caption = drawing.caption or captions.get(drawing.name, "")
        entry = {"name": drawing.name, "caption": caption, "source": data_uri(png)}
        entry["kind"] = "half" if drawing.figure.get_figwidth() <= _HALF_PAGE else "whole"
        sections.setdefault(drawing.section, []).append(entry)
    return sections


def write_page(
    path: Path,
    template: str,
    setting: str,
    *,
    filters: Mapping[str, Callable[..., str]] | None = None,
    **values: Any,
) -> Path:
    """Fill in a template of `kerasseg/templates` and write the page.

    The filters `number`, `interval`, `significant`, `percent` and `metric` are there in every
    template. Returns `path`.

    Args:
        filters: More filters of this template.
        **values: What the template shows. A name that it needs and does not get is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": format_value,
        "interval": format_interval,
        "significant": format_significant,
        "percent": format_percent,
        "metric": format_metric_name,
        **(filters or {}),
    }
    write_text(path, environment.get_template(template).render(**values), setting)
    return path
