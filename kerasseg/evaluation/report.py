"""`report.html`: the run on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from kerasseg.evaluation.scores import CaseScore, columns_in_words, score_columns
from kerasseg.write_aside import write_aside


def write_report(
    folder: Path, summary: dict[str, Any], scores: Sequence[CaseScore], target: str
) -> Path:
    """Write the page into the run `folder`, with the figures that the scores name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    text = environment.get_template("report.html").render(
        folder=folder,
        summary=summary,
        scores=scores,
        columns=score_columns(target),
        meaning=columns_in_words(target),
    )
    path = folder / "report.html"
    with write_aside(path, "run.root") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
