"""`kerasseg explore`: what is in the data, drawn."""

import typer

from kerasseg.verbs.options import (
    ConfigOption,
    OutputOption,
    Overrides,
    experiment_of,
    output_folder,
)


def explore(
    overrides: Overrides = None, config: ConfigOption = None, output: OutputOption = None
) -> None:
    """Draw what is in the data: sizes, places, intensities, examples, on one page."""
    from kerasseg.exploration.explore import explore as explore_cases

    experiment = experiment_of(config, overrides)
    page = explore_cases(experiment, output_folder(experiment, output) / "explore")
    typer.echo(f"Look at {page}")
