"""Verbs for data and settings: bench data, config, configs, convert, doctor, weights, …"""

import json
import re
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kerasseg.cli.options import (
    FOUND_ERRORS,
    ConfigOption,
    OutputOption,
    Overrides,
    output_folder,
    read_experiment,
    stopped,
    with_tensorflow,
)

if TYPE_CHECKING:
    from kerasseg.doctor import Share


def bench_data(
    overrides: Overrides = None,
    config: ConfigOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long the pipeline is run.")
    ] = 10.0,
) -> None:
    """Measure the input pipeline.

    Says patches per second, the slowest stage and what would help.
    """
    experiment = read_experiment(config, overrides)
    with_tensorflow()
    from kerasseg.bench_data import bench_data as measure

    measure(experiment, seconds)


def show_config(
    overrides: Overrides = None,
    config: ConfigOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON schema of a config file instead.")
    ] = False,
) -> None:
    """Write the experiment that train would run as YAML.

    Every default is filled in.
    """
    from kerasseg.config.load import dump_experiment
    from kerasseg.config.messages import json_schema

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    else:
        typer.echo(dump_experiment(read_experiment(config, overrides)), nl=False)


def list_configs() -> None:
    """List the ready configs: what each trains, on which data, its cost and expected score."""
    from kerasseg.config.load import READY_CONFIGS, ready_configs

    for name, heading in ready_configs().items():
        text = re.sub(r"python (train|tune)\.py", r"kerasseg \1", heading)
        text = re.sub(r"(configs/)?\b(\w+)\.yaml\b", r"\2", text)
        typer.echo(f"{name}\n{textwrap.indent(text, '    ')}\n")
    typer.echo(f"A config is used by its name or from its file in {READY_CONFIGS.resolve()}.")


def list_weights() -> None:
    """List the pretrained weights that are known: size, licence, maker, and where they are here."""
    from kerasseg.pretrained_weights import KNOWN_WEIGHTS, cached_path, find_weights

    for name, known in KNOWN_WEIGHTS.items():
        path = find_weights(known)
        typer.echo(f"{name:18}{known.megabytes:4} MB  {known.licence:13} {known.source}")
        typer.echo(f"    used by {known.setting}")
        typer.echo(f"    here: {path}" if path else f"    not here: {known.remedy}")
    typer.echo(f"Files without a package may also be put into {cached_path('')}.")


def convert(
    overrides: Overrides = None,
    config: ConfigOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Convert every case again and replace the store.")
    ] = False,
) -> None:
    """Convert scans to a record store, or bring it up to date.

    A conversion that was stopped goes on. Only new and changed cases are converted.
    """
    from kerasseg.records.store import replace_store, update_store

    experiment = read_experiment(config, overrides)
    try:
        store = replace_store(experiment) if overwrite else update_store(experiment)
    except KeyboardInterrupt as interrupt:
        advice = "kerasseg convert goes on after the last whole shard."
        raise stopped(interrupt, advice) from None
    size = sum(store.manifest.shards.values()) / 1e6
    typer.echo(f"{store.root}: {len(store.rows)} cases, {size:.1f} MB.")
    for case in store.manifest.skipped:
        typer.echo(f"left out: {case.case_id}: {case.reason}")


def doctor(overrides: Overrides = None, config: ConfigOption = None) -> None:
    """Say what this machine offers, and what is wrong with it.

    With --config it also says what a run needs: memory is estimated, time is measured on a few
    batches.
    """
    experiment = read_experiment(config, overrides) if config or overrides else None

    def choose() -> "Share | None":
        from kerasseg.doctor import share_of_this_machine

        return share_of_this_machine(experiment) if experiment else None

    share = with_tensorflow(choose)
    from kerasseg.doctor import examine, forecast

    examine()
    if experiment and share:
        typer.echo(f"\nThis run: {config or 'the demo'}")
        forecast(experiment, share)


def explore(
    overrides: Overrides = None, config: ConfigOption = None, output: OutputOption = None
) -> None:
    """Draw what is in the data on one page.

    It has sizes, places, intensities and examples.
    """
    from kerasseg.data_report.explore import explore as explore_cases

    experiment = read_experiment(config, overrides)
    page = explore_cases(experiment, output_folder(experiment, output) / "explore")
    typer.echo(f"Look at {page}")


def show_batch(
    overrides: Overrides = None,
    config: ConfigOption = None,
    examples: Annotated[int, typer.Option(min=1, max=64, help="Number of patches.")] = 6,
    epoch: Annotated[int, typer.Option(min=1, help="Epoch of the patches.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Seed that replaces run.seed.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Draw training patches before and after augmentation."""
    experiment = read_experiment(config, overrides)
    with_tensorflow()
    from kerasseg.show_batch import show_batch as show_patches

    path = output_folder(experiment, output) / "show_batch.png"
    show_patches(experiment, path, examples=examples, epoch=epoch, seed=seed)
    typer.echo(f"Look at {path}")


def verify(
    overrides: Overrides = None,
    config: ConfigOption = None,
    records: Annotated[
        bool, typer.Option("--records", help="Check the converted store instead of the raw files.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Check every case before training.

    The exit code is 1 if there is an error.
    """
    from kerasseg.data_report.table import print_verification, write_json
    from kerasseg.data_report.verify import verify as verify_cases
    from kerasseg.data_report.verify import verify_records

    experiment = read_experiment(config, overrides)
    result = verify_records(experiment) if records else verify_cases(experiment)
    print_verification(result, Console())
    path = output_folder(experiment, output) / ("verify_records.json" if records else "verify.json")
    write_json(result, path)
    typer.echo(f"Written to {path}")
    if not result.ok:
        raise typer.Exit(FOUND_ERRORS)
