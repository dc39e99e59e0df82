"""`kerasseg predict`: scans to label files."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kerasseg.errors import UserError
from kerasseg.verbs.exit_codes import FOUND_ERRORS, INTERRUPTED
from kerasseg.verbs.options import Combine, Labels, Layout
from kerasseg.verbs.with_tensorflow import with_tensorflow


def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... INPUT [SECTION.KEY=VALUE]...",
            help="Run folders; the scans: a case's folder, a folder of cases, or files; overrides.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the predictions.")],
    layout: Annotated[
        Layout | None,
        typer.Option(help="How the scans are laid out, if not as they look."),
    ] = None,
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="Ids in the labels: brats NCR 1, ED 2, ET 4; brats23 1, 2, 3; msd 2, 1, 3. "
            "Default: those of the run's data set, or of the scans'."
        ),
    ] = None,
    combine: Annotated[
        Combine, typer.Option(help="Several runs: mean of probabilities, or vote of masks.")
    ] = "mean",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write them, too, float32, a file per channel.")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write maps of entropy and variance, too.")
    ] = False,
    overlays: Annotated[
        int | None,
        typer.Option(min=0, help="How many of the cases to draw. Default: evaluation.overlays."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict finished cases anew.")
    ] = False,
) -> None:
    """Segment scans with finished runs; labels come out in the scans' own grid.

    Needs nothing but the run folders. Exit code 1 if a case failed.
    """
    from kerasseg.prediction.arguments import split_arguments

    arguments = split_arguments(words)
    with_tensorflow()
    from kerasseg.prediction.predict import predict as predict_scans
    from kerasseg.prediction.predict_files import Wanted
    from kerasseg.prediction.show_outcome import show_outcome

    wanted = Wanted(probabilities, uncertainty, labels, overwrite)
    try:
        outcome = predict_scans(
            arguments, output, combine=combine, layout=layout, overlays=overlays, wanted=wanted
        )
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on after the finished cases.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    show_outcome(outcome, output, Console())
    if outcome.stopped:
        raise UserError(f"{outcome.stopped} Finished cases are whole; the same command goes on.")
    if outcome.failed:
        raise typer.Exit(FOUND_ERRORS)
