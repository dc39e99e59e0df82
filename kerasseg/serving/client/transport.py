"""Another try after a server went away.

`Connection`: where a server is, and how to speak with it.

`ServerError`: what a server answered instead of a segmentation.

Requests over gRPC.

Requests over REST, with the standard library's HTTP.
"""

import base64
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from kerasseg.errors import UserError
from kerasseg.serving.protocol import from_proto, serving_apis, to_proto


@dataclass(frozen=True)
class Connection:
    """A server's address and what protects the way to it.

    tls:         encrypt, and check the server's certificate
    authority:   PEM file of who signed it, instead of the system's
    certificate, key: PEM files of the client's own, for a server that asks
    deadline:    seconds for one request
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
        """Whether the server runs on this machine, where nothing is gained by compression."""
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


def parse_server(words: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT -> both. Raises `UserError`."""
    host, colon, port = words.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise UserError(
            f"--server: {words!r} is no HOST:PORT, such as localhost:8500 (gRPC) or localhost:8501 "
            "(REST)."
        )
    return host, int(port)


def read_pem(path: Path | None, option: str) -> bytes | None:
    """The bytes of a PEM file. Raises `UserError` if it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be read: {error.strerror}.") from None


class ServerError(UserError):
    """A request without an answer.

    gone:  whether the server could not be reached or was too busy, so that another try may help
    """

    def __init__(self, sentence: str, *, gone: bool = False) -> None:
        super().__init__(sentence)
        self.gone = gone


_OPTIONS = (
    # A volume is larger than the 4 MiB that gRPC allows by itself.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that was started again is found at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
)
_GRPC_BUSY = "Concurrent RPC limit"
"""What gRPC itself says if a server has as many requests as it takes."""
_NOT_GRPC = "Failed parsing HTTP/2"
"""What it says of a server of HTTP/1."""


class GrpcTransport:
    """TensorFlow Serving's PredictionService."""

    name = "gRPC"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._apis = serving_apis()
        grpc = self._apis.grpc
        if connection.tls:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=read_pem(connection.authority, "--authority"),
                private_key=read_pem(connection.key, "--key"),
                certificate_chain=read_pem(connection.certificate, "--certificate"),
            )
            self._channel = grpc.secure_channel(connection.address, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(connection.address, _OPTIONS)
        self._stub = self._apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(
        self, model: str, version: int | None, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], int]:
        """Outputs, strings as bytes, and the bytes of the request.

        Raises `ServerError`.
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
        return {name: _value(from_proto(v)) for name, v in response.outputs.items()}, size

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _error(self, error: Any) -> ServerError:
        codes = self._apis.grpc.StatusCode
        code, told = error.code(), (error.details() or "it does not say why").strip()
        where = self._connection.address
        if code == codes.UNIMPLEMENTED or _NOT_GRPC in told:
            return ServerError(
                f"{where} is no gRPC server of TensorFlow Serving ({told}): is it the port of "
                "REST? Then use --rest."
            )
        if code == codes.UNAVAILABLE or (code == codes.RESOURCE_EXHAUSTED and _GRPC_BUSY in told):
            return ServerError(
                f"{where} does not answer ({told}): start it, wait, or look at --server.",
                gone=True,
            )
        if code == codes.DEADLINE_EXCEEDED:
            return ServerError(
                f"{where} did not answer within {self._connection.deadline:g} s: give it longer "
                "with --deadline."
            )
        return ServerError(f"{where} refuses ({code.name}): {told}")


def _value(array: np.ndarray) -> Any:
    return array.item() if array.dtype == object and array.ndim == 0 else array


_HTTP_BUSY = (429, 502, 503)
_SAID = 500
"""Characters of an answer that is no JSON, such as a proxy's page, that are passed on."""


class RestTransport:
    """TensorFlow Serving's REST API v1; KServe speaks the same."""

    name = "REST"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tls = _context(connection) if connection.tls else None

    def predict(
        self, model: str, version: int | None, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], int]:
        """Outputs, strings as bytes, numbers as arrays, and the bytes of the request's body.

        Raises `ServerError`.
        """
        values = {name: _json_value(value) for name, value in inputs.items()}
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
                f"{_start(text)!r}. Is it the port of REST?"
            ) from None
        if not isinstance(outputs, dict) or set(outputs) == {"b64"}:
            outputs = {"": outputs}
        return {name: _python_value(value) for name, value in outputs.items()}, len(body)

    def close(self) -> None:
        """Nothing is kept open."""

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        at = self._connection
        if self._tls is None:
            connection = http.client.HTTPConnection(at.host, at.port, timeout=at.deadline)
        else:
            connection = http.client.HTTPSConnection(
                at.host, at.port, timeout=at.deadline, context=self._tls
            )
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            raise ServerError(
                f"{at.address} did not answer within {at.deadline:g} s: give it longer with "
                "--deadline."
            ) from None
        except ssl.SSLError as error:
            raise ServerError(
                f"{at.address}: no TLS connection ({error.reason or error}): look at --authority."
            ) from None
        except http.client.BadStatusLine as error:
            if not isinstance(error, http.client.RemoteDisconnected):
                raise ServerError(
                    f"{at.address} does not speak HTTP: is it the port of gRPC? Then leave out "
                    "--rest."
                ) from None
            raise self._gone(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None
        finally:
            connection.close()

    def _gone(self, error: Exception) -> ServerError:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ServerError(
            f"{self._connection.address} does not answer ({told}): start it, wait, or look at "
            "--server.",
            gone=True,
        )

    def _refusal(self, status: int, text: bytes) -> ServerError:
        try:
            told = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            told = _start(text)
        if status in _HTTP_BUSY:
            return ServerError(f"{self._connection.address} does not answer ({told}).", gone=True)
        return ServerError(f"{self._connection.address} refuses (HTTP {status}): {told}")


def _context(connection: Connection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connection.authority)
        if connection.certificate is not None:
            context.load_cert_chain(connection.certificate, connection.key)
    except OSError as error:
        raise UserError(
            f"--authority, --certificate or --key cannot be read: {error.strerror or error}."
        ) from None
    return context


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _python_value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else np.array(value)


def _start(text: bytes) -> str:
    return text[:_SAID].decode("utf-8", "replace").strip() or "nothing"


Result = TypeVar("Result")
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0


def retry(
    work: Callable[[], Result],
    retries: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """What `work` returns, tried again up to `retries` times while the server is gone.

    Between two tries are 1, 2, 4, 8 and then 10 seconds. A segmentation changes nothing on the
    server, so asking twice does no harm.

    say: is told of every try that failed

    Raises the last `ServerError`, and at once one that another try does not mend.
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
