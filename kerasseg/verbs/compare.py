"""`kerasseg compare`: runs next to each other."""

from pathlib import Path
from typing import Annotated

import typer

from kerasseg.verbs.options import check_split
from kerasseg.verbs.with_tensorflow import with_tensorflow


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders.")],
    split: Annotated[
        str, typer.Option("--split", help="Side of the split: test, validation or train.")
    ] = "test",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what is written.")
    ] = Path("reports/compare"),
) -> None:
    """Put finished runs next to each other: means, paired differences, the same slices."""
    check_split(split)
    with_tensorflow()
    from kerasseg.evaluation.compare_runs import compare_runs

    typer.echo(f"Look at {compare_runs(runs, split, output)}")
