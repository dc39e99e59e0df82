"""`kerasseg <verb>`. TensorFlow is imported inside a verb only, so help answers at once."""

import sys
from collections.abc import Callable

import typer

from kerasseg.errors import UserError
from kerasseg.verbs.bench_data import bench_data
from kerasseg.verbs.compare import compare
from kerasseg.verbs.config import show_config
from kerasseg.verbs.convert import convert
from kerasseg.verbs.doctor import doctor
from kerasseg.verbs.evaluate import evaluate
from kerasseg.verbs.exit_codes import USER_MISTAKE
from kerasseg.verbs.explore import explore
from kerasseg.verbs.export import export
from kerasseg.verbs.predict import predict
from kerasseg.verbs.segment import segment
from kerasseg.verbs.serve import serve
from kerasseg.verbs.show_batch import show_batch
from kerasseg.verbs.train import train
from kerasseg.verbs.tune import tune
from kerasseg.verbs.tune_report import tune_report
from kerasseg.verbs.verify import verify

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
app.command()(doctor)

bench = typer.Typer(help="Measure parts of kerasseg on this machine.", no_args_is_help=True)
bench.command(name="data")(bench_data)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of `kerasseg`."""
    _run(app)


def train_main() -> None:
    """Entry point of `train.py`: `kerasseg train` with the same arguments."""
    _run(lambda: app(["train", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}"))


def tune_main() -> None:
    """Entry point of `tune.py`: `kerasseg tune` with the same arguments."""
    _run(lambda: app(["tune", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}"))


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
