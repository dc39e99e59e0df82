"""`kerasseg segment`: scans to a server, label files back."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kerasseg.errors import UserError
from kerasseg.verbs.exit_codes import FOUND_ERRORS, INTERRUPTED
from kerasseg.verbs.options import Labels, Layout

Compression = Literal["auto", "gzip", "none"]


def segment(
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="CASE...", help="A case's folder, a folder of cases, or files."),
    ],
    server: Annotated[
        str, typer.Option(help="HOST:PORT; TensorFlow Serving's are 8500 (gRPC), 8501 (REST).")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File (.nii.gz, .nii, .png) of one case, or a folder."),
    ],
    model: Annotated[str, typer.Option(help="The model's name on the server.")] = "kerasseg",
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version. Default: the one that answers.")
    ] = None,
    rest: Annotated[bool, typer.Option("--rest", help="REST instead of gRPC.")] = False,
    layout: Annotated[
        Layout | None, typer.Option(help="How the scans are laid out, if not as they look.")
    ] = None,
    labels: Annotated[
        Labels | None, typer.Option(help="Ids in the labels, as of kerasseg predict.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write them, too (float16 of --rest).")
    ] = False,
    overlays: Annotated[int, typer.Option(min=0, help="How many of the cases to draw.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Segment finished cases of a folder anew.")
    ] = False,
    compression: Annotated[
        Compression, typer.Option(help="auto: gzip unless the server is on this machine.")
    ] = "auto",
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 600.0,
    retries: Annotated[
        int, typer.Option(min=0, max=100, help="How often to ask a server again that is gone.")
    ] = 3,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, and check the server.")] = False,
    authority: Annotated[
        Path | None, typer.Option(help="PEM file of who signed the server's certificate.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of your own certificate; with --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Segment scans on a TensorFlow Serving server; labels come out in the scans' own grid.

    Exit code 1 if a case failed.
    """
    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together: give both, or neither.")
    if (authority or certificate) and not tls:
        raise UserError("--authority, --certificate and --key are of --tls: add it.")
    from rich.console import Console

    from kerasseg.prediction.predict_files import Wanted
    from kerasseg.prediction.show_outcome import show_outcome
    from kerasseg.serving.client.client import Client
    from kerasseg.serving.client.segment_files import segment_files

    client = Client(
        server,
        model,
        version=version,
        rest=rest,
        probabilities=probabilities,
        compression=compression,
        retries=retries,
        tls=tls,
        authority=authority,
        certificate=certificate,
        key=key,
        deadline=deadline,
    )
    wanted = Wanted(probabilities=probabilities, labels=labels, overwrite=overwrite)
    try:
        with client:
            outcome = segment_files(client, scans, output, wanted, layout=layout, overlays=overlays)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on after the finished cases.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    show_outcome(outcome, output, Console())
    if client.sent is not None:
        print(client.sent_in_words)
    if outcome.stopped:
        raise UserError(f"{outcome.stopped} Finished cases are whole; the same command goes on.")
    if outcome.failed:
        raise typer.Exit(FOUND_ERRORS)
