"""TensorFlow Serving's REST API v1, health and metrics, as a FastAPI application."""

import asyncio
import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from google.protobuf.json_format import MessageToJson
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kerasseg.serving.server.grpc import (
    DEFAULT_SIGNATURE,
    internal_error,
    metadata_response,
    status_response,
)
from kerasseg.serving.server.limits import Limits, Reason, Refusal, Spec, bad_input
from kerasseg.serving.server.models import Models
from kerasseg.serving.server.requests import Held, Metrics, Requests, read_body

_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
"""Kind of a NumPy dtype to the kinds of JSON values that it takes."""
_JSON_TURN = threading.Lock()
"""Numbers of JSON are large objects in Python, so one request at a time may have them."""


def rest_app(models: Models, metrics: Metrics, requests: Requests) -> FastAPI:
    """Return the application; it answers a request that is refused with {"error": "…"}.

    Everything but a prediction is answered by the event loop itself, so that no thread has to be
    free for it.
    """
    app = FastAPI(title="kerasseg serve", docs_url=None, redoc_url=None, openapi_url=None)
    limits = models.limits

    async def predict(request: Request, name: str, version: int | None) -> Response:
        until = time.monotonic() + limits.seconds
        try:
            with requests.request() as held:
                body = await read_body(request, requests, held, limits, until)
                work = _predict(models, metrics, name, version, body, held, until)
                del body
                leaving = asyncio.ensure_future(_until_gone(request, held))
                try:
                    return _json(await requests.compute(held, work))
                finally:
                    leaving.cancel()
        except ClientDisconnect:
            return _error(400, "The sender hung up.")  # nobody reads it

    @app.post("/v1/models/{name}:predict")
    async def predict_newest(request: Request, name: str) -> Response:
        return await predict(request, name, None)

    @app.post("/v1/models/{name}/versions/{version}:predict")
    async def predict_version(request: Request, name: str, version: int) -> Response:
        return await predict(request, name, version)

    @app.get("/v1/models/{name}")
    async def status(name: str) -> Response:
        return _message(status_response(models, name, None))

    @app.get("/v1/models/{name}/versions/{version}")
    async def version_status(name: str, version: int) -> Response:
        return _message(status_response(models, name, version))

    @app.get("/v1/models/{name}/metadata")
    async def metadata(name: str) -> Response:
        return _message(metadata_response(models, name, None))

    @app.get("/v1/models/{name}/versions/{version}/metadata")
    async def version_metadata(name: str, version: int) -> Response:
        return _message(metadata_response(models, name, version))

    @app.get("/healthz")
    async def alive() -> Response:
        return _json('{"status": "alive"}')

    @app.get("/readyz")
    async def ready() -> Response:
        if not models.ready:
            raise Refusal(Reason.UNAVAILABLE, "Not every model has a version that answers.")
        return _json('{"status": "ready"}')

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return _error(refusal.reason.http_status, refusal.sentence)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, f"{error.detail}: {request.method} {request.url.path}")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return _error(400, f"Malformed request, a version is a number: {request.url.path}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _error(500, internal_error(error))

    return app


async def _until_gone(request: Request, held: Held) -> None:
    """Take the request out of the queue when its sender hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    held.hung_up()


def _json(text: str | bytes, status: int = 200) -> Response:
    return Response(text, status_code=status, media_type="application/json")


def _error(status: int, sentence: str) -> Response:
    return _json(json.dumps({"error": sentence}), status)


def _message(message: Any) -> Response:
    return _json(
        MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def _predict(
    models: Models,
    metrics: Metrics,
    name: str,
    version: int | None,
    body: bytes,
    held: Held,
    until: float,
) -> Callable[[], bytes]:
    """Return the work of a predict request, which returns the JSON of its outputs."""
    parts = [body]  # so that the work can let go of it

    def work() -> bytes:
        with metrics.request("rest") as labels:
            labels["model"] = name
            served = models.model(name)  # a missing model is told before anything is parsed
            loaded = served.get(version)
            with _json_turn(until):
                parsed = parse_body(parts.pop(), models.limits)
                signature = parsed.get("signature_name") or DEFAULT_SIGNATURE
                labels["signature"] = signature
                inputs = read_inputs(parsed, loaded.specs(signature))
                rows = len(parsed["instances"]) if "instances" in parsed else None
                del parsed
            outputs = served.predict(
                loaded, signature, inputs, until - time.monotonic(), held.queued
            )
            with _json_turn(until):
                return json.dumps(write_outputs(outputs, rows)).encode()

    return work


@contextmanager
def _json_turn(until: float) -> Iterator[None]:
    if not _JSON_TURN.acquire(timeout=max(until - time.monotonic(), 0)):
        raise Refusal(Reason.TOO_LATE, "The time for this request was over before its turn came.")
    try:
        yield
    finally:
        _JSON_TURN.release()


def parse_body(body: bytes, limits: Limits) -> dict[str, Any]:
    """Return the request's JSON object.

    Raises `Refusal` for a body that is no such object, or has too many values for the memory.
    """
    values, lists = body.count(b","), body.count(b"[") + body.count(b"{")
    if values > limits.json_values or lists > limits.json_lists:
        raise Refusal(
            Reason.TOO_LARGE,
            f"The JSON holds {values + 1} values in {lists} lists; at most {limits.json_values} in "
            f"{limits.json_lists} are taken: use the signature segment_bytes, or gRPC.",
        )
    try:
        parsed = from_json(body)
    except ValueError as error:
        raise bad_input(f"The body is no JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise bad_input(
            "The body is no JSON object: expected signature_name and inputs or instances."
        )
    unknown = set(parsed) - {"signature_name", "inputs", "instances"}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise bad_input(f"The body has {names}, which nothing reads: leave it out.")
    if ("inputs" in parsed) == ("instances" in parsed):
        raise bad_input("The body needs either inputs (columns) or instances (rows).")
    if not isinstance(parsed.get("signature_name", ""), str):
        raise bad_input("signature_name is no string.")
    return parsed


def read_inputs(parsed: dict[str, Any], specs: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    """Return the inputs of a request as arrays of the signature's types.

    `inputs` holds every tensor by its name, or the only one alone. `instances` holds a list of
    rows, each the only tensor or all by their names; the rows are stacked. Raises `Refusal` for
    values of another type, rows of different shapes, and unknown names.
    """
    if "inputs" in parsed:
        columns = _by_name(parsed["inputs"], specs)
    else:
        instances = parsed["instances"]
        if not isinstance(instances, list) or not instances:
            raise bad_input("instances is no list, or empty.")
        rows = [_by_name(row, specs) for row in instances]
        if any(set(row) != set(rows[0]) for row in rows):
            raise bad_input("instances do not all have the same inputs.")
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    unknown = set(columns) - set(specs)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise bad_input(f"There is no input {names}: the signature takes {_names(specs)}.")
    return {name: _read_array(name, value, specs[name]) for name, value in columns.items()}


def _by_name(value: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_binary(value):
        return value
    if len(specs) != 1:
        raise bad_input(f"Values without a name: the signature takes {_names(specs)}.")
    return {next(iter(specs)): value}


def _names(specs: Mapping[str, Spec]) -> str:
    return ", ".join(sorted(specs))


def _read_array(name: str, value: Any, spec: Spec) -> np.ndarray:
    if spec.dtype == "string":
        return _read_strings(name, value)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise bad_input(f"{name} is no regular array: rows have different lengths.") from None
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind not in _KINDS[wanted.kind] and array.size:
        raise bad_input(f"{name} holds values that are no {spec.dtype}.")
    if wanted.kind in "iu" and array.size:
        info = np.iinfo(wanted)
        if array.min() < info.min or array.max() > info.max:
            raise bad_input(f"{name} holds values that {spec.dtype} does not.")
    return array.astype(wanted)


def _read_strings(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, list):
        return np.asarray(_read_bytes(name, value), object)
    parts = [_read_strings(name, part) for part in value]
    if len({part.shape for part in parts}) > 1:
        raise bad_input(f"{name} is no regular array: rows have different lengths.")
    result = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for index, part in enumerate(parts):
        result[index] = part.item() if part.ndim == 0 else part
    return result


def _read_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not _is_binary(value):
        raise bad_input(f'{name} is no string and no {{"b64": "…"}}.')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise bad_input(f"{name}: the value of b64 is no base64.") from None


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def write_outputs(outputs: Mapping[str, np.ndarray], rows: int | None) -> dict[str, Any]:
    """Return the answer's JSON object; a single output stands there without its name.

    `rows` is how many `instances` the request had; None if it had `inputs`. Raises `Refusal` if an
    output has another number of rows.
    """
    for name, array in outputs.items():
        if rows is not None and (not array.ndim or array.shape[0] != rows):
            raise bad_input(
                f"{name} has the shape {array.shape}, no {rows} row(s): ask with inputs, not with "
                "instances."
            )
    values = {name: _write_array(name, array) for name, array in outputs.items()}
    only = next(iter(values.values())) if len(values) == 1 else None
    if rows is None:
        return {"outputs": values if only is None else only}
    if only is not None:
        return {"predictions": only}
    return {"predictions": [{name: values[name][row] for name in values} for row in range(rows)]}


def _write_array(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    # TensorFlow Serving encodes strings as base64 if the output's name says that they are bytes.
    return _write_strings(array.tolist(), binary=name.endswith("_bytes"))


def _write_strings(value: Any, *, binary: bool) -> Any:
    if isinstance(value, list):
        return [_write_strings(part, binary=binary) for part in value]
    if binary:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", "replace")
