"""Requests over REST, with the standard library's HTTP."""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from kerasseg.errors import UserError
from kerasseg.serving.client.connection import Connection
from kerasseg.serving.client.server_error import ServerError

_BUSY = (429, 502, 503)
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
        if status in _BUSY:
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
