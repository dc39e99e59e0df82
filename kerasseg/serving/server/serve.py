"""`kerasseg serve`: both protocols over one folder of models, until SIGTERM."""

import asyncio
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasseg.errors import UserError
from kerasseg.serving.protocol import missing_extra, serving_apis, version_number
from kerasseg.serving.server.limits import Limits

if TYPE_CHECKING:
    from kerasseg.serving.server.models import Models

_GRACE_SECONDS = 60.0
"""How long running requests may take after SIGTERM; a second SIGTERM ends the server at once."""
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """The address that a server listens on.

    Attributes:
        host: A name or an IP address of this machine.
        grpc_port: 0 for any free port.
        rest_port: 0 for any free port.
        certificate: PEM file for TLS; given together with `key`, or not at all.
        key: PEM file of the certificate's private key.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    certificate: Path | None = None
    key: Path | None = None


def serve(
    root: Path, address: Address, limits: Limits, poll_seconds: float, say: Callable[[str], None]
) -> None:
    """Serve the models below `root` until SIGTERM or Ctrl-C, then finish what runs.

    Raises `UserError` for a folder without models, a port that is taken, and a missing extra.

    Args:
        root: Folder of NAME/VERSION/saved_model.pb.
        poll_seconds: Time between two looks for new versions.
        say: Called with each line for the person who watches the server.
    """
    check_models_folder(root)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a client's mistake is not the server's news
    try:
        from kerasseg.serving.server.loaded_version import LoadedVersion
        from kerasseg.serving.server.models import Models
    except ImportError as error:
        raise missing_extra(error) from error
    if address.host not in LOCAL:
        say(
            f"WARNING: {address.host} can be reached by others, and this server asks nobody who "
            "they are: put a proxy that does in front of it, or leave --host 127.0.0.1."
        )
    stop = threading.Event()
    _stop_on_signals(stop)
    models = Models(root, limits, LoadedVersion, say)
    with Servers(models, address) as servers:
        models.watch(poll_seconds)
        scheme = "https" if address.certificate else "http"
        say(
            f"Serving {root}: gRPC {address.host}:{servers.grpc_port}, REST "
            f"{scheme}://{address.host}:{servers.rest_port}. Ctrl-C stops."
        )
        stop.wait()
        say("Stopping; running requests are finished first.")


def check_models_folder(root: Path) -> None:
    """Raise `UserError` if there is no model, and name the folder that was meant if it is seen."""
    if not root.is_dir():
        raise UserError(f"MODELS_DIR: {root} is no folder (looked from {Path.cwd()}).")
    if any(_is_version(path.parent) for path in root.glob("*/*/saved_model.pb")):
        return
    meant = None
    if (root / "saved_model.pb").is_file():
        meant = root.resolve().parent.parent
    elif any(_is_version(path.parent) for path in root.glob("*/saved_model.pb")):
        meant = root.resolve().parent
    hint = f"name {meant} instead" if meant else "make one with kerasseg export"
    raise UserError(f"MODELS_DIR: {root} holds no NAME/VERSION/saved_model.pb: {hint}.")


def _is_version(folder: Path) -> bool:
    return version_number(folder.name) is not None


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


class Servers:
    """Both servers of some models, in one thread with an event loop, while the block runs.

    At its end what runs is finished first, for up to a minute. Raises `UserError` for a port that
    is taken, and a missing extra.

    Attributes:
        grpc_port, rest_port: The ports, also where `address` asks for any.
    """

    def __init__(self, models: "Models", address: Address) -> None:
        try:
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise missing_extra(error) from error
        self._models, self._address = models, address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener = listen(address.host, address.rest_port, "--rest-port")
        self.rest_port: int = self._listener.getsockname()[1]
        self._thread.start()
        try:
            self.grpc_port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:
            self._listener.close()
            self._end_thread()
            raise

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._end_thread()

    async def _start(self) -> int:
        import uvicorn

        from kerasseg.serving.server.connections import limited
        from kerasseg.serving.server.grpc import grpc_server
        from kerasseg.serving.server.requests import Metrics, Requests
        from kerasseg.serving.server.rest import rest_app

        address, limits = self._address, self._models.limits
        metrics, requests = Metrics(self._models), Requests(limits)
        self._over_grpc = grpc_server(self._models, metrics, requests)
        port = _bind_grpc(self._over_grpc, address)
        config = uvicorn.Config(
            rest_app(self._models, metrics, requests),
            http=limited(limits),
            ws="none",
            lifespan="off",
            log_level="critical",  # the application writes down its mistakes itself
            access_log=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(_GRACE_SECONDS),
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
        )
        await self._over_grpc.start()
        self._over_http = uvicorn.Server(config)
        self._http = self._loop.create_task(self._over_http.serve(sockets=[self._listener]))
        return port

    async def _stop(self) -> None:
        self._over_http.should_exit = True
        await asyncio.gather(
            self._over_grpc.stop(_GRACE_SECONDS),
            asyncio.to_thread(self._models.close, _GRACE_SECONDS),
            self._http,
        )

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _bind_grpc(server: Any, address: Address) -> int:
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.grpc_port}"
    try:
        if address.certificate and address.key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(address.certificate, address.key, password="")
            pair = (address.key.read_bytes(), address.certificate.read_bytes())
            credentials = serving_apis().grpc.ssl_server_credentials([pair])
            port = server.add_secure_port(where, credentials)
        else:
            port = server.add_insecure_port(where)
    except OSError as error:
        raise UserError(
            f"--certificate {address.certificate}, --key {address.key}: they cannot be used "
            f"({error}): give PEM files of a certificate and of its key, without a password."
        ) from None
    except RuntimeError:
        port = 0
    if not port:
        raise UserError(
            f"--grpc-port: {where} cannot be listened on: it is taken, or no address of this "
            "machine. Name another one."
        )
    return port


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a socket that is bound to a port of this machine; `option` names the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"{option}: {host}:{port} cannot be listened on "
            f"({error.strerror or error}): name another one."
        ) from None
    return listener
