"""The verbs `kerasseg export`, `serve`, `segment`, `app` and `space`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kerasseg.cli.options import Combine, Labels, Layout, finish_prediction, with_tensorflow
from kerasseg.errors import UserError

Precision = Literal["float32", "float16", "int8"]
_FORMATS_NO_LONGER_WRITTEN = {
    "openvino": "OpenVINO reads ONNX: export with --format onnx --output models/NAME.onnx, then "
    'openvino.convert_model("models/NAME.onnx") in Python, or ovc models/NAME.onnx',
    "litert": "export with --format onnx for onnxruntime, or convert the run's Keras network "
    "yourself: load RUN/checkpoints/best.keras and give it to tf.lite.TFLiteConverter",
}


def export(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RUN... [SECTION.KEY=VALUE]", help="Run folders; overrides."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the model, models/NAME; each export is a new version in it. With "
            "--format onnx the file models/NAME.onnx.",
        ),
    ],
    labels: Labels = None,
    combine: Annotated[
        Combine | None,
        typer.Option(help="Several runs: mean of probabilities [default], or vote of masks."),
    ] = None,
    largest_volume: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**30,
            help="Voxels (depth x height x width) a request may have. [default: 67108864]",
        ),
    ] = None,
    gzip: Annotated[
        bool | None, typer.Option("--gzip/--no-gzip", help="Take compressed volumes [default].")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="[savedmodel|onnx]",
            help="onnx holds the network of one run: patches to probabilities.",
        ),
    ] = "savedmodel",
    precision: Annotated[
        Precision | None, typer.Option(help="Of --format onnx. [default: float32]")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Mean Dice that float16 and int8 may lose on the run's validation cases. "
            "[default: 0.01]",
        ),
    ] = None,
) -> None:
    """Write runs as one SavedModel that takes raw scans.

    Beside it lies what a server needs. Several runs are one model. docs/serving.md says how it is
    started and asked. --format onnx writes the network of one run instead.
    """
    from kerasseg.config.load import split_settings
    from kerasseg.run import read_run
    from kerasseg.serving.protocol import check_output, onnx_files

    runs, settings = split_settings(arguments)
    if not runs:
        raise UserError("kerasseg export needs a run folder: kerasseg export RUN --output DIR.")
    if format in _FORMATS_NO_LONGER_WRITTEN:
        instead = _FORMATS_NO_LONGER_WRITTEN[format]
        raise UserError(f"--format {format} is no longer written: {instead}.")
    if format not in ("savedmodel", "onnx"):
        raise UserError(f"--format {format}: expected savedmodel or onnx.")
    of_savedmodel = {"--combine": combine, "--largest-volume": largest_volume, "--gzip": gzip}
    of_onnx = {"--precision": precision, "--tolerance": tolerance}
    other = "onnx" if format == "savedmodel" else "savedmodel"
    for name, value in (of_onnx if format == "savedmodel" else of_savedmodel).items():
        if value is not None:
            raise UserError(
                f"{name} is an option of --format {other}, not of {format}: leave it out."
            )
    if format == "onnx":
        if settings:
            raise UserError(
                f"--format onnx holds the network alone, which {settings[0]} does not change: "
                "leave it out, or export without --format."
            )
        if tolerance is not None and precision in (None, "float32"):
            raise UserError(
                "--tolerance is an option of --precision float16 and int8: leave it out."
            )
    for run in runs:
        read_run(run, settings)  # refuses it now, not after the seconds of TensorFlow
    (onnx_files if format == "onnx" else check_output)(output)
    with_tensorflow()
    if format == "onnx":
        _export_onnx(runs, output, precision, labels, tolerance)
        return
    from kerasseg.serving.export import LARGEST_VOLUME, export_runs

    version, written = export_runs(
        runs,
        output,
        settings,
        combine=combine or "mean",
        labels=labels,
        largest_volume=largest_volume or LARGEST_VOLUME,
        gzip=gzip is not False,
    )
    print(f"{version}: ready to be served; beside it {', '.join(path.name for path in written)}.")


def _export_onnx(
    runs: list[Path],
    output: Path,
    precision: Precision | None,
    labels: str | None,
    tolerance: float | None,
) -> None:
    from kerasseg.serving.export_onnx import DICE_TOLERANCE, export_onnx

    allowed = DICE_TOLERANCE if tolerance is None else tolerance
    (model, sheet), contents = export_onnx(
        runs, output, precision or "float32", labels, tolerance=allowed
    )
    check, dice = contents["check"], contents["dice"]
    limit = "" if check["allowed"] is None else f", {check['allowed']:g} is allowed"
    print(f"{model}: largest difference of a probability {check['largest_difference']:.2g}{limit}.")
    if isinstance(dice, dict):
        print(
            f"Mean Dice of {dice['cases']} validation cases: {dice['exported']:.4f}, of the "
            f"network {dice['network']:.4f}; a loss of up to {dice['tolerance']:g} is allowed."
        )
    else:
        print(f"Mean Dice {dice}.")
    print(f"{sheet}: what goes in and what comes out.")


Compression = Literal["auto", "gzip", "none"]


def segment(
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="CASE", help="A case's folder, a folder of cases, or files."),
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
        int | None,
        typer.Option(min=1, max=2**63 - 1, help="Its version. Default: the one that answers."),
    ] = None,
    rest: Annotated[bool, typer.Option("--rest", help="REST instead of gRPC.")] = False,
    layout: Annotated[
        Layout | None, typer.Option(help="Layout of the scans, if it is not recognised.")
    ] = None,
    labels: Labels = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write probabilities.")
    ] = False,
    overlays: Annotated[int, typer.Option(min=0, help="How many of the cases to draw.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Segment finished cases of a folder again.")
    ] = False,
    compression: Annotated[
        Compression, typer.Option(help="auto: gzip unless the server is on this machine.")
    ] = "auto",
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 600.0,
    retries: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="How often to ask a server again; 8 times take 55 seconds."
        ),
    ] = 8,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, and check the server.")] = False,
    authority: Annotated[
        Path | None, typer.Option(help="PEM file of who signed the server's certificate.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of your own certificate; with --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Segment scans on a TensorFlow Serving server.

    Labels come out in the scans' own grid. Exit code 1 if a case failed.
    """
    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together: give both, or neither.")
    if (authority or certificate) and not tls:
        raise UserError("--authority, --certificate and --key are options of --tls: add it.")
    from kerasseg.prediction.predict_files import OutputOptions
    from kerasseg.serving.client import Client, segment_files

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
    options = OutputOptions(probabilities=probabilities, labels=labels, overwrite=overwrite)
    with client:
        outcome = segment_files(client, scans, output, options, layout=layout, overlays=overlays)
    if client.sent is not None:
        print(client.format_sent())
    finish_prediction(outcome, output)


def serve(
    models: Annotated[
        Path, typer.Argument(metavar="MODELS_DIR", help="Folder of NAME/VERSION/saved_model.pb.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any other than 127.0.0.1 lets others use it.")
    ] = "127.0.0.1",
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of gRPC; 0: any free one.")
    ] = 8500,
    rest_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of REST and /metrics; 0: any free one.")
    ] = 8501,
    queue: Annotated[
        int, typer.Option(min=1, max=1000, help="Requests of one model that may wait.")
    ] = 8,
    request_mib: Annotated[
        int, typer.Option(min=1, max=2047, help="Largest request in MiB, as it is sent.")
    ] = 256,
    volume_mib: Annotated[
        int, typer.Option(min=1, help="Largest volume in MiB, as float32.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for one request, its waiting included.")
    ] = 600.0,
    poll: Annotated[
        float, typer.Option(min=0.1, help="Seconds between looks for new versions.")
    ] = 2.0,
    certificate: Annotated[
        Path | None,
        typer.Option(exists=True, help="PEM file of the certificate, for TLS; with --key."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(exists=True, help="PEM file of its private key.")
    ] = None,
) -> None:
    """Serve exported models in TensorFlow Serving's protocols.

    A convenience where TensorFlow Serving is not at hand; production is TensorFlow Serving. New
    versions are taken up as they appear.
    """
    from kerasseg.serving.server.limits import MIB, Limits
    from kerasseg.serving.server.serve import Address, check_models_folder
    from kerasseg.serving.server.serve import serve as serve_models

    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together: give both, or neither.")
    check_models_folder(models)
    with_tensorflow()
    serve_models(
        models,
        Address(host, grpc_port, rest_port, certificate, key),
        Limits(request_mib * MIB, volume_mib * MIB, queue, timeout),
        poll,
        lambda line: print(line, file=sys.stderr, flush=True),
    )


def app(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders to offer.")],
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Others than 127.0.0.1 need --token or --public."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8600,
    token: Annotated[
        str | None, typer.Option(help="A secret that visitors need: the page is at /?token=…")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Anybody who reaches the page may use it.")
    ] = False,
    embed_in: Annotated[
        list[str] | None,
        typer.Option(help="A site that may show the page in a frame: https://huggingface.co"),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, max=1000, help="Predictions that may wait.")] = 8,
    file_mib: Annotated[
        int, typer.Option(min=1, max=2047, help="Largest file in MiB, as it is sent.")
    ] = 256,
    scan_mib: Annotated[int, typer.Option(min=1, help="Largest scan in MiB, as float32.")] = 1024,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one prediction.")] = 600.0,
) -> None:
    """Show a page: drop a scan, see the tumour, correct it, take it home.

    It runs on this machine and asks no other. Research use only.
    """
    from kerasseg.app.serve import PageAddress, serve_app
    from kerasseg.serving.server.limits import MIB, Limits

    serve_app(
        runs,
        PageAddress(host, port, token, public, tuple(embed_in or ())),
        Limits(file_mib * MIB, scan_mib * MIB, queue, timeout),
        lambda line: print(line, file=sys.stderr, flush=True),
    )


def space(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders to offer.")],
    sdk: Annotated[
        Literal["docker", "gradio"],
        typer.Option(help="Build a Dockerfile, or let Gradio show the page."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, or a Space's.")],
) -> None:
    """Write a Hugging Face Space with the page and the runs.

    Its README.md says what it needs and how it is put online. Nothing is sent anywhere.
    """
    from kerasseg.app.space import write_space

    written = write_space(runs, output, sdk)
    print(f"{output}: {', '.join(written)}. README.md says how to try it and put it online.")
