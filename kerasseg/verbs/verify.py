"""`kerasseg verify`: what is wrong with the data."""

from typing import Annotated

import typer
from rich.console import Console

from kerasseg.verbs.exit_codes import FOUND_ERRORS
from kerasseg.verbs.options import (
    ConfigOption,
    OutputOption,
    Overrides,
    experiment_of,
    output_folder,
)


def verify(
    overrides: Overrides = None,
    config: ConfigOption = None,
    records: Annotated[
        bool, typer.Option("--records", help="Check the converted store instead of the raw files.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Check every case before any hour is spent on it; exit code 1 if there is an error."""
    from kerasseg.verification.records import verify_records
    from kerasseg.verification.report_json import write_json
    from kerasseg.verification.table import show
    from kerasseg.verification.verify import verify as verify_cases

    experiment = experiment_of(config, overrides)
    result = verify_records(experiment) if records else verify_cases(experiment)
    show(result, Console())
    path = output_folder(experiment, output) / ("verify_records.json" if records else "verify.json")
    write_json(result, path)
    typer.echo(f"Written to {path}")
    if not result.ok:
        raise typer.Exit(FOUND_ERRORS)
