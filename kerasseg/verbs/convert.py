"""`kerasseg convert`: scans to records."""

import sys
from typing import Annotated

import typer

from kerasseg.verbs.exit_codes import INTERRUPTED
from kerasseg.verbs.options import ConfigOption, Overrides, experiment_of


def convert(
    overrides: Overrides = None,
    config: ConfigOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Convert every case anew, in the store's place.")
    ] = False,
) -> None:
    """Convert the scans to a record store, or bring the one there is up to date.

    A conversion that was stopped goes on. Only new and changed cases are converted.
    """
    from kerasseg.records.store import replace_store, update_store

    experiment = experiment_of(config, overrides)
    try:
        store = replace_store(experiment) if overwrite else update_store(experiment)
    except KeyboardInterrupt:
        print("\nStopped. kerasseg convert goes on after the last whole shard.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    size = sum(store.manifest.shards.values()) / 1e6
    typer.echo(f"{store.root}: {len(store.rows)} cases, {size:.1f} MB.")
    for case in store.manifest.skipped:
        typer.echo(f"left out: {case.case_id}: {case.reason}")
