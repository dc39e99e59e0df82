"""The command `kerasseg`: its verbs, and how it ends. TensorFlow is imported inside a verb only.

The verbs are imported inside a function, too, so that a signal is answered from the first moment.
"""

import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

from kerasseg import __version__
from kerasseg.errors import Interrupted, UserError, describe_storage_error, printable

if TYPE_CHECKING:
    import typer

USER_MISTAKE = 2
"""Exit code after an error that the user can correct."""
EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "train": (
        "kerasseg train",
        "kerasseg train --config brats20_3d data.root=~/BraTS2020 --fold 0",
        "kerasseg train --config brats20_3d data.root=~/BraTS2020 --resume",
    ),
    "tune": (
        "kerasseg tune",
        "kerasseg tune --config tune_lgg_2d search.max_trials=30 --then-train",
    ),
    "convert": (
        "kerasseg convert --config brats20_3d data.root=~/BraTS2020",
        "kerasseg convert data.layout=msd data.root=~/Task01_BrainTumour records.workers=8",
    ),
    "predict": (
        "kerasseg predict runs/NAME scans/ --output predictions",
        "kerasseg predict runs/NAME flair.nii.gz t1.nii.gz t1ce.nii.gz t2.nii.gz -o out",
        "kerasseg predict runs/A runs/B scans/ 'evaluation.flips=[width]' -o predictions",
    ),
    "verify": (
        "kerasseg verify data.layout=brats_nifti data.root=~/BraTS2021",
        "kerasseg verify --records --config brats20_3d data.root=~/BraTS2020",
    ),
    "explore": ("kerasseg explore data.layout=brats_nifti data.root=~/BraTS2021",),
    "show-batch": (
        "kerasseg show-batch",
        "kerasseg show-batch --config lgg_2d data.root=~/kaggle_3m --examples 8",
    ),
    "evaluate": (
        "kerasseg evaluate runs/NAME",
        "kerasseg evaluate runs/NAME --split validation 'evaluation.flips=[width]'",
        "kerasseg evaluate runs/A runs/B --ensemble mean -o reports/both",
        "kerasseg evaluate --pred predictions --truth labels --labels 1,2,4 -o reports/files",
    ),
    "compare": (
        "kerasseg compare runs/A runs/B",
        "kerasseg compare runs/A runs/A 'evaluation.flips=[width]'",
    ),
    "export": (
        "kerasseg export runs/NAME --output models/brats",
        "kerasseg export runs/NAME --format onnx --output models/brats.onnx",
    ),
    "serve": ("kerasseg serve models",),
    "segment": (
        "kerasseg segment scans/ --server localhost:8500 --model brats -o predictions",
        "kerasseg segment case/ --server localhost:8501 --rest --model brats -o case.nii.gz",
    ),
    "app": ("kerasseg app runs/NAME", "kerasseg app runs/A runs/B --port 8601"),
    "space": ("kerasseg space runs/NAME --sdk docker --output space",),
    "tune-report": ("kerasseg tune-report tuning/NAME",),
    "config": (
        "kerasseg config training.epochs=10 > mine.yaml",
        "kerasseg config --schema > schema.json",
    ),
    "configs": ("kerasseg configs",),
    "weights": ("kerasseg weights",),
    "doctor": ("kerasseg doctor", "kerasseg doctor --config brats20_3d"),
    "bench data": ("kerasseg bench data --config brats20_3d --seconds 20",),
}
"""Uses of each verb, which its help shows; the verbs are in the order in which they are used."""
ADVICE: Final = {
    "train": "The same command goes on with a conversion, --resume with a training.",
    "tune": "The same command again goes on.",
    **dict.fromkeys(("predict", "segment"), "The same command goes on after the finished cases."),
}
"""The advice where a signal stops a verb whose work is kept."""


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run `kerasseg`.

    Args:
        arguments: What follows the program's name; by default that of the command line.
        program: The name that usage messages show.
    """
    with contextlib.suppress(ValueError):  # Python allows handlers in its main thread only
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        with mistakes_as_sentences():
            build_program()(arguments, prog_name=program)
    except KeyboardInterrupt as interrupt:
        # A verb that has begun answers by itself.
        print("\nStopped before it began.", file=sys.stderr)
        sys.exit(128 + getattr(interrupt, "number", signal.SIGINT))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
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


def build_program() -> "typer.Typer":
    """Return the command with all its verbs."""
    import typer

    from kerasseg.cli import data, evaluate, serving, train
    from kerasseg.cli.options import stopped

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"kerasseg {__version__}")
            raise typer.Exit

    def program(
        version: Annotated[
            bool,
            typer.Option(
                "--version", help="Show the version and exit.", callback=show_version, is_eager=True
            ),
        ] = False,
    ) -> None:
        pass

    def stoppable(verb: Callable[..., None], advice: str) -> Callable[..., None]:
        """Answer Ctrl-C and SIGTERM with a sentence, unless the verb does it itself."""

        @functools.wraps(verb)
        def run(*arguments: Any, **options: Any) -> None:
            try:
                verb(*arguments, **options)
            except KeyboardInterrupt as interrupt:
                raise stopped(interrupt, advice) from None

        return run

    # Rich would take [brackets] in a help text for its markup, and leave them out.
    new = functools.partial(typer.Typer, no_args_is_help=True, rich_markup_mode=None)
    app = new(
        name="kerasseg",
        help="Segment brain tumours in MRI: from raw scans to whole-volume segmentations.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(program)
    bench = new(help="Measure parts of kerasseg on this machine.")
    bench.callback()(lambda: None)
    verbs: dict[str, Callable[..., Any]] = {
        "train": train.train,
        "tune": train.tune,
        "convert": data.convert,
        "predict": evaluate.predict,
        "verify": data.verify,
        "explore": data.explore,
        "show-batch": data.show_batch,
        "evaluate": evaluate.evaluate,
        "compare": evaluate.compare,
        "export": serving.export,
        "serve": serving.serve,
        "segment": serving.segment,
        "app": serving.app,
        "space": serving.space,
        "tune-report": train.tune_report,
        "config": data.show_config,
        "configs": data.list_configs,
        "weights": data.list_weights,
        "doctor": data.doctor,
        "bench data": data.bench_data,
    }
    for name, verb in verbs.items():
        group, _, own = name.rpartition(" ")
        lines = "\n".join(f"  {example}" for example in EXAMPLES[name])
        epilog = f"\b\nExamples:\n{lines}"  # \b keeps the lines of a paragraph apart
        advice = ADVICE.get(name, "The same command begins again.")
        (bench if group else app).command(name=own, epilog=epilog)(stoppable(verb, advice))
    app.add_typer(bench, name="bench")
    return app


if __name__ == "__main__":
    main()
