"""`report.html`: the run on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from kerasseg.errors import storage_error
from kerasseg.evaluation.scores import SCORES, CaseScore


def write_report(
    folder: Path, summary: dict[str, Any], scores: Sequence[CaseScore], drawn: Sequence[CaseScore]
) -> Path:
    """Write the page into the run `folder`; `drawn` are the cases that have figures."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    text = environment.get_template("report.html").render(
        folder=folder, summary=summary, scores=scores, drawn=drawn, columns=SCORES
    )
    path = folder / "report.html"
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, f"Writing {path}", "run.root") from error
    return path
