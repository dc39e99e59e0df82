"""Requests to a server of TensorFlow Serving's protocols, over gRPC or REST."""

import base64
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from kerasseg.errors import UserError
from kerasseg.serving.protocol import from_proto, serving_apis, to_proto

Result = TypeVar("Result")
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
_GRPC_OPTIONS = (
    # A volume is larger than the 4 MiB that gRPC allows by itself.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that was started again is found at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
)
_GRPC_BUSY = "Concurrent RPC limit"
"""gRPC's own message of a server that has as many requests as it takes."""
_NOT_GRPC = ("Failed parsing HTTP/2", "connect an http1.x server")
"""gRPC's own messages of a server of HTTP/1."""
_HTTP_BUSY = (429, 502, 503)
_QUOTED = 500
"""Characters that are quoted of an answer that is no JSON, such as a proxy's page."""


class ServerError(UserError):
    """A request without an answer.

    `gone` says that the server could not be reached or was too busy, so that another try may help.
    """

    def __init__(self, sentence: str, *, gone: bool = False) -> None:
        super().__init__(sentence)
        self.gone = gone


@dataclass(frozen=True)
class Connection:
    """The address of a server, and what protects the way to it.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        tls: Whether to encrypt, and to check the server's certificate.
        authority: PEM file of who signed it, instead of the system's authorities.
        certificate: PEM file of the client's own, for a server that asks.
        key: PEM file of its private key.
        deadline: Seconds for one request.
    """

    host: str
    port: int
    tls: bool = False
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    deadline: float = 600.0

    @property
    def local(self) -> bool:
        """True if the server runs on this machine, where nothing is gained by compression."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def gone(
        self, reason: str, advice: str = ": start it, wait, or look at --server"
    ) -> ServerError:
        """Return the error of a server that does not answer."""
        return ServerError(f"{self.address} does not answer ({reason}){advice}.", gone=True)

    def too_late(self) -> ServerError:
        """Return the error of a server that did not answer within the deadline."""
        return ServerError(
            f"{self.address} did not answer within {self.deadline:g} s: give it longer with "
            "--deadline."
        )


def parse_server(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or [IPv6]:PORT; raise `UserError` for anything else."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise UserError(
            f"--server: {text!r} is no HOST:PORT, such as localhost:8500 (gRPC) or localhost:8501 "
            "(REST)."
        )
    return host, int(port)


def retry(
    work: Callable[[], Result],
    retries: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """Return the result of `work`, tried again up to `retries` times while the server is gone.

    Between two tries are 1, 2, 4, 8 and then 10 seconds. A segmentation changes nothing on the
    server, so asking twice does no harm. `say` is called with a line for every try that failed.
    Raises `ServerError` after the last try, and at once if another try does not help.
    """
    for attempt in range(retries):
        try:
            return work()
        except ServerError as error:
            if not error.gone:
                raise
            seconds = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            say(f"{error} Trying again in {seconds:g} s ({attempt + 1} of {retries}).")
            pause(seconds)
    return work()


class GrpcTransport:
    """Requests to TensorFlow Serving's PredictionService."""

    name = "gRPC"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._apis = serving_apis()
        grpc = self._apis.grpc
        if connection.tls:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_read_pem(connection.authority, "--authority"),
                private_key=_read_pem(connection.key, "--key"),
                certificate_chain=_read_pem(connection.certificate, "--certificate"),
            )
            self._channel = grpc.secure_channel(connection.address, credentials, _GRPC_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(connection.address, _GRPC_OPTIONS)
        self._stub = self._apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(
        self, model: str, version: int | None, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], int]:
        """Return the outputs, strings as bytes, and the bytes of the request.

        Raises `ServerError` if the server does not answer.
        """
        request = self._apis.predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(to_proto(value))
        size = request.ByteSize()
        try:
            response = self._stub.Predict(request, timeout=self._connection.deadline)
        except self._apis.grpc.RpcError as error:
            raise self._error(error) from None
        outputs = {}
        for name, message in response.outputs.items():
            array = from_proto(message)
            outputs[name] = array.item() if array.dtype == object and not array.ndim else array
        return outputs, size

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _error(self, error: Any) -> ServerError:
        codes = self._apis.grpc.StatusCode
        code, details = error.code(), (error.details() or "it does not say why").strip()
        where = self._connection.address
        if code == codes.UNIMPLEMENTED or any(sign in details for sign in _NOT_GRPC):
            return ServerError(
                f"{where} is no gRPC server of TensorFlow Serving ({details}): is it the port of "
                "REST? Then use --rest."
            )
        busy = code == codes.RESOURCE_EXHAUSTED and _GRPC_BUSY in details
        if code == codes.UNAVAILABLE or busy:
            return self._connection.gone(details)
        if code == codes.DEADLINE_EXCEEDED:
            return self._connection.too_late()
        return ServerError(f"{where} refuses ({code.name}): {details}")


def _read_pem(path: Path | None, option: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be read: {error.strerror}.") from None


class RestTransport:
    """Requests to TensorFlow Serving's REST API v1, which KServe speaks, too."""

    name = "REST"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tls = _tls_context(connection) if connection.tls else None

    def predict(
        self, model: str, version: int | None, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], int]:
        """Return the outputs, strings as bytes and numbers as arrays, and the bytes of the body.

        Raises `ServerError` if the server does not answer.
        """
        values = {name: _to_json(value) for name, value in inputs.items()}
        request = {"signature_name": signature, "inputs": values}
        body = json.dumps(request, separators=(",", ":")).encode()
        path = f"/v1/models/{quote(model, safe='')}"
        path += f"/versions/{version}" if version is not None else ""
        status, text = self._post(f"{path}:predict", body)
        if status != 200:
            raise self._refusal(status, text)
        try:
            answer = json.loads(text)
            outputs = answer["outputs"] if "outputs" in answer else answer["predictions"]
        except (ValueError, KeyError, TypeError):
            raise ServerError(
                f"{self._connection.address} answers, but not as TensorFlow Serving does: "
                f"{_quote_start(text)!r}. Is it the port of REST?"
            ) from None
        if not isinstance(outputs, dict) or set(outputs) == {"b64"}:
            outputs = {"": outputs}
        return {name: _from_json(value) for name, value in outputs.items()}, len(body)

    def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        at = self._connection
        kind: Any = http.client.HTTPConnection
        if self._tls is not None:
            kind = partial(http.client.HTTPSConnection, context=self._tls)
        connection = kind(at.host, at.port, timeout=at.deadline)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            raise at.too_late() from None
        except ssl.SSLError as error:
            raise ServerError(
                f"{at.address}: no TLS connection ({error.reason or error}): look at --authority."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            # A server that hangs up is a BadStatusLine, too.
            hung_up = isinstance(error, http.client.RemoteDisconnected)
            if isinstance(error, http.client.BadStatusLine) and not hung_up:
                raise ServerError(
                    f"{at.address} does not speak HTTP: is it the port of gRPC? Then leave out "
                    "--rest."
                ) from None
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise at.gone(reason) from None
        finally:
            connection.close()

    def _refusal(self, status: int, text: bytes) -> ServerError:
        try:
            told = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            told = _quote_start(text)
        if status in _HTTP_BUSY:
            return self._connection.gone(told, advice="")
        return ServerError(f"{self._connection.address} refuses (HTTP {status}): {told}")


def _tls_context(connection: Connection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connection.authority)
        if connection.certificate is not None:
            context.load_cert_chain(connection.certificate, connection.key)
    except OSError as error:
        raise UserError(
            f"--authority, --certificate or --key cannot be read: {error.strerror or error}."
        ) from None
    return context


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else np.array(value)


def _quote_start(text: bytes) -> str:
    return text[:_QUOTED].decode("utf-8", "replace").strip() or "nothing"
