"""`kerasseg tune-report`: a search on one page."""

from pathlib import Path
from typing import Annotated

import typer


def tune_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a search.")],
) -> None:
    """Draw a search for settings: trials, parallel coordinates, importance, curves, time."""
    from kerasseg.tuning.report.write_tune_report import write_tune_report

    typer.echo(f"Look at {write_tune_report(folder)}")
