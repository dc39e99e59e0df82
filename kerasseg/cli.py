"""`kerasseg <verb>`. TensorFlow is imported inside a verb only, so help answers at once."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from kerasseg.errors import UserError

app = typer.Typer(
    name="kerasseg",
    help="Segment brain tumours in MRI: from raw scans to whole-volume segmentations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of the experiment.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Overrides.")
]
USER_MISTAKE = 2
"""Exit code of everything the user can mend."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@app.command()
def train(
    overrides: Overrides = None,
    config: ConfigOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this name.")
    ] = False,
) -> None:
    """Convert the scans if needed, train, evaluate whole volumes, write a run folder.

    Without --config: the demo on generated phantoms.
    """
    from kerasseg.config_file import DEMO_CONFIG, load_experiment

    experiment = load_experiment(config or DEMO_CONFIG, overrides or ())
    _start_tensorflow()
    from kerasseg.experiment import run_experiment

    try:
        run_experiment(experiment, resume=resume)
    except KeyboardInterrupt:
        print("\nStopped. If an epoch was finished, --resume goes on after it.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def convert(
    overrides: Overrides = None,
    config: ConfigOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store.")
    ] = False,
) -> None:
    """Convert the scans to a record store, or check the one there is."""
    from kerasseg.config_file import DEMO_CONFIG, load_experiment
    from kerasseg.records.store import open_store, replace_store

    experiment = load_experiment(config or DEMO_CONFIG, overrides or ())
    store = replace_store(experiment) if overwrite else open_store(experiment)
    store.check_records()
    size = sum(store.manifest.shards.values()) / 1e6
    typer.echo(f"{store.root}: {len(store.rows)} cases, {size:.1f} MB, every checksum right.")


@app.command(name="config")
def show_config(
    overrides: Overrides = None,
    config: ConfigOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON schema of a config file instead.")
    ] = False,
) -> None:
    """Write the resolved experiment as YAML, every default filled in."""
    from kerasseg.config_file import dump_experiment, json_schema, load_experiment

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    else:
        typer.echo(dump_experiment(load_experiment(config, overrides or ())), nl=False)


@app.command()
def doctor() -> None:
    """Say what this machine offers, and what is wrong with it."""
    _start_tensorflow()
    from kerasseg.doctor import examine

    examine()


def main() -> None:
    """Entry point of `kerasseg`."""
    _run(app)


def train_main() -> None:
    """Entry point of `train.py`: `kerasseg train` with the same arguments."""
    _run(lambda: app(["train", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}"))


def _start_tensorflow() -> None:
    """Start TensorFlow, if Keras is to run on it at all."""
    from kerasseg.start_tensorflow import start_tensorflow

    backend = os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend} is set in your environment, but kerasseg trains on "
            "TensorFlow: unset it, or set KERAS_BACKEND=tensorflow."
        )
    start_tensorflow()


def _run(program: Callable[[], object]) -> None:
    try:
        program()
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(
            f"{error.filename}: {error.strerror}: change its permissions, or name another path."
        )


def _refuse(message: str) -> None:
    sys.stdout.flush()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(USER_MISTAKE)


if __name__ == "__main__":
    main()
