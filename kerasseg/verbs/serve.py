"""`kerasseg serve`: a local server of SavedModels."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kerasseg.errors import UserError
from kerasseg.verbs.with_tensorflow import with_tensorflow


def serve(
    models: Annotated[
        Path, typer.Argument(metavar="MODELS_DIR", help="Folder of NAME/VERSION/saved_model.pb.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than 127.0.0.1 let anybody ask.")
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
        Path | None, typer.Option(help="PEM file of the certificate, for TLS; with --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Serve exported models on this machine, in TensorFlow Serving's own protocols.

    A convenience where TensorFlow Serving is not at hand; production is TensorFlow Serving. New
    versions are taken up as they appear.
    """
    from kerasseg.serving.server.limits import MIB, Limits
    from kerasseg.serving.server.serve import Address
    from kerasseg.serving.server.serve import serve as serve_models
    from kerasseg.serving.server.version_folders import check_models_folder

    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together: give both, or neither.")
    for option, path in (("--certificate", certificate), ("--key", key)):
        if path is not None and not path.is_file():
            raise UserError(f"{option}: {path} is no file.")
    check_models_folder(models)
    with_tensorflow()
    serve_models(
        models,
        Address(host, grpc_port, rest_port, certificate, key),
        Limits(request_mib * MIB, volume_mib * MIB, queue, timeout),
        poll,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
