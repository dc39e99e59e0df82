"""`kerasseg export`: runs to a model that TensorFlow Serving loads."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kerasseg.errors import UserError
from kerasseg.verbs.with_tensorflow import with_tensorflow

Labels = Literal["brats", "brats23", "msd"]
Combine = Literal["mean", "vote"]


def export(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN... [SECTION.KEY=VALUE]...", help="Run folders; overrides."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder of the model, models/NAME; each export is a version."
        ),
    ],
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="Ids in the labels: brats NCR 1, ED 2, ET 4; brats23 1, 2, 3; msd 2, 1, 3. "
            "Default: those of the run's data set."
        ),
    ] = None,
    combine: Annotated[
        Combine, typer.Option(help="Several runs: mean of probabilities, or vote of masks.")
    ] = "mean",
    largest_volume: Annotated[
        int,
        typer.Option(min=1, max=2**30, help="Voxels (depth x height x width) a request may have."),
    ] = 2**26,
    gzip: Annotated[
        bool, typer.Option("--gzip/--no-gzip", help="Take compressed volumes, too.")
    ] = True,
) -> None:
    """Write runs as one SavedModel that takes raw scans, with what a server needs.

    Several runs are one model. docs/serving.md says how it is started and asked.
    """
    from kerasseg.prediction.arguments import split_settings

    runs, settings = split_settings(words)
    if not runs:
        raise UserError("kerasseg export needs a run folder: kerasseg export RUN --output DIR.")
    with_tensorflow()
    from kerasseg.serving.export.export_runs import Wanted, export_runs

    wanted = Wanted(combine, labels, largest_volume, gzip)
    version, written = export_runs(runs, output, wanted, settings)
    print(f"{version}: ready to be served; beside it {', '.join(path.name for path in written)}.")
