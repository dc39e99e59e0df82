"""The command `kerasseg`: its verbs, and how it ends. TensorFlow is imported inside a verb only.

The verbs are imported inside a function, too, so that a signal is answered from the first moment.
"""

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

from kerasseg import __version__
from kerasseg.errors import Interrupted, UserError, describe_storage_error, printable

if TYPE_CHECKING:
    import typer

USER_MISTAKE = 2
"""Exit code after an error that the user can correct."""
EXAMPLES: Final = json.loads(Path(__file__).with_name("examples.json").read_text("utf-8"))
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
