"""The command `kerasseg`. TensorFlow is imported inside a verb only, so help answers at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from kerasseg.cli.data import (
    bench_data,
    convert,
    doctor,
    explore,
    list_configs,
    show_batch,
    show_config,
    verify,
)
from kerasseg.cli.evaluate import compare, evaluate, predict
from kerasseg.cli.options import USER_MISTAKE
from kerasseg.cli.serving import export, segment, serve
from kerasseg.cli.train import train
from kerasseg.cli.tune import tune, tune_report
from kerasseg.errors import UserError, describe_storage_error, printable

app = typer.Typer(
    name="kerasseg",
    help="Segment brain tumours in MRI: from raw scans to whole-volume segmentations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which they are used.
for verb in (
    train,
    tune,
    convert,
    predict,
    verify,
    explore,
    show_batch,
    evaluate,
    compare,
    export,
    serve,
    segment,
):
    app.command()(verb)
app.command(name="tune-report")(tune_report)
app.command(name="config")(show_config)
app.command(name="configs")(list_configs)
app.command()(doctor)

bench = typer.Typer(help="Measure parts of kerasseg on this machine.", no_args_is_help=True)
bench.command(name="data")(bench_data)
app.add_typer(bench, name="bench")


def main() -> None:
    """Run `kerasseg` with the arguments of the command line."""
    with mistakes_as_sentences():
        app()


@contextmanager
def mistakes_as_sentences() -> Iterator[None]:
    """End the program with a sentence where the user, or a full disk, is the cause of an error."""
    try:
        yield
    except UserError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:  # not about a file: a mistake of ours, whose traceback is needed
            raise
        message = f"{error.filename}: {describe_storage_error(error)}."
    else:
        return
    sys.stdout.flush()
    for line in message.splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(USER_MISTAKE)


if __name__ == "__main__":
    main()
