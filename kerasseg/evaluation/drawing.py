"""A figure of a report with its words."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """`section` is the heading under which it stands, `caption` says how to read it."""

    name: str
    section: str
    caption: str
    figure: Figure
