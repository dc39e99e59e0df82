"""`kerasseg config`: the experiment, every default filled in."""

import json
from typing import Annotated

import typer

from kerasseg.verbs.options import ConfigOption, Overrides


def show_config(
    overrides: Overrides = None,
    config: ConfigOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON schema of a config file instead.")
    ] = False,
) -> None:
    """Write the resolved experiment as YAML, every default filled in."""
    from kerasseg.config_file import dump_experiment, load_experiment
    from kerasseg.config_schema import json_schema

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    else:
        typer.echo(dump_experiment(load_experiment(config, overrides or ())), nl=False)
