"""`report.html`: the run on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.scores import (
    CaseScore,
    columns_in_words,
    empty_rule_in_words,
    score_columns,
)
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.page import data_uri, write_page


def write_report(
    folder: Path,
    summary: dict[str, Any],
    scores: Sequence[CaseScore],
    target: str,
    metrics: MetricsSection | None = None,
) -> Path:
    """Write the page into the run `folder`, with the figures that the scores name inside it."""
    return write_page(
        folder / "report.html",
        "report.html",
        "run.root",
        folder=folder,
        summary=summary,
        scores=scores,
        columns=score_columns(target),
        meaning=columns_in_words(target),
        empty_rule=empty_rule_in_words(metrics or MetricsSection()),
        units=UNITS,
        figure=lambda name: data_uri((folder / "figures" / name).read_bytes()),
    )
