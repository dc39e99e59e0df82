"""TensorFlow Serving's REST API v1, health and metrics, as a FastAPI application.

The JSON of TensorFlow Serving's REST API -> tensors of a signature.

Tensors -> the JSON of TensorFlow Serving's REST API.

The body of an HTTP request, under a limit of size and time.
"""

import asyncio
import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from google.protobuf.json_format import MessageToJson
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from kerasseg.serving.server import grpc as answers
from kerasseg.serving.server.checks import Limits, Reason, Refusal, Spec, inflate
from kerasseg.serving.server.grpc import metadata_response, status_response
from kerasseg.serving.server.metrics import Metrics
from kerasseg.serving.server.models import Models

_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
"""Kind of a dtype -> kinds of JSON values that it takes."""


def parse_body(body: bytes, limits: Limits) -> dict[str, Any]:
    """The request's object. Raises `Refusal` for what is no JSON object, or would not fit."""
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
        raise _bad(f"The body is no JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise _bad("The body is no JSON object: expected signature_name and inputs or instances.")
    unknown = set(parsed) - {"signature_name", "inputs", "instances"}
    if unknown:
        raise _bad(f"The body has {', '.join(sorted(unknown))}, which nothing reads: leave it out.")
    if ("inputs" in parsed) == ("instances" in parsed):
        raise _bad("The body needs either inputs (columns) or instances (rows).")
    if not isinstance(parsed.get("signature_name", ""), str):
        raise _bad("signature_name is no string.")
    return parsed


def json_inputs(parsed: dict[str, Any], specs: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    """The tensors, of the signature's types.

    `inputs`:    every tensor by its name, or the only one alone
    `instances`: a list of rows, each the only tensor or all by their names; rows are stacked

    Raises `Refusal` for values of another type, rows of different shapes, and unknown names.
    """
    if "inputs" in parsed:
        columns = _by_name(parsed["inputs"], specs)
    else:
        columns = _columns(parsed["instances"], specs)
    unknown = set(columns) - set(specs)
    if unknown:
        raise _bad(f"There is no input {', '.join(sorted(unknown))}: {_takes(specs)}.")
    return {name: _tensor(name, columns[name], specs[name]) for name in list(columns)}


def _by_name(value: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    named = isinstance(value, dict) and not _is_binary(value)
    if named:
        return value
    if len(specs) != 1:
        raise _bad(f"Values without a name: {_takes(specs)}.")
    return {next(iter(specs)): value}


def _columns(rows: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise _bad("instances is no list, or empty.")
    named = [_by_name(row, specs) for row in rows]
    if any(set(row) != set(named[0]) for row in named):
        raise _bad("instances do not all have the same inputs.")
    return {name: [row[name] for row in named] for name in named[0]}


def _tensor(name: str, value: Any, spec: Spec) -> np.ndarray:
    if spec.dtype == "string":
        return _read_strings(name, value)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise _bad(f"{name} is no regular array: rows have different lengths.") from None
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind not in _KINDS[wanted.kind] and array.size:
        raise _bad(f"{name} holds values that are no {spec.dtype}.")
    if wanted.kind in "iu" and array.size:
        info = np.iinfo(wanted)
        if array.min() < info.min or array.max() > info.max:
            raise _bad(f"{name} holds values that {spec.dtype} does not.")
    return array.astype(wanted)


def _read_strings(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, list):
        return np.asarray(_bytes(name, value), object)
    parts = [_read_strings(name, part) for part in value]
    if len({part.shape for part in parts}) > 1:
        raise _bad(f"{name} is no regular array: rows have different lengths.")
    result = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for index, part in enumerate(parts):
        result[index] = part.item() if part.ndim == 0 else part
    return result


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if _is_binary(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise _bad(f"{name}: what stands under b64 is no base64.") from None
    raise _bad(f'{name} is no string and no {{"b64": "…"}}.')


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _takes(specs: Mapping[str, Spec]) -> str:
    return f"the signature takes {', '.join(sorted(specs))}"


def _bad(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_INPUT, sentence)


def columns(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For a request with `inputs`: every tensor by its name, or the only one alone."""
    values = {name: _values(name, array) for name, array in outputs.items()}
    return {"outputs": next(iter(values.values())) if len(values) == 1 else values}


def rows(outputs: Mapping[str, np.ndarray], count: int) -> dict[str, Any]:
    """For a request with `instances`: a list of as many rows.

    Raises `Refusal` if an output has another number of rows.
    """
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != count:
            raise Refusal(
                Reason.BAD_INPUT,
                f"{name} has the shape {array.shape}, no {count} row(s): ask with inputs, "
                "not with instances.",
            )
    values = {name: _values(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [{name: values[name][row] for name in values} for row in range(count)]}


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    return _write_strings(array.tolist(), binary=name.endswith("_bytes"))


def _write_strings(value: Any, *, binary: bool) -> Any:
    if isinstance(value, list):
        return [_write_strings(part, binary=binary) for part in value]
    if binary:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", "replace")


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The whole body, inflated if its Content-Encoding is gzip.

    Raises `Refusal` for more than `most` bytes, announced or sent, and for a sender that takes
    longer than `seconds`.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most, int(announced))
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding not in ("", "identity", "gzip"):
        raise Refusal(Reason.BAD_INPUT, f"Content-Encoding is {encoding}, expected gzip or none.")
    try:
        body = await asyncio.wait_for(_collect(request, most), seconds)
    except asyncio.TimeoutError:  # before Python 3.11 another one than the built-in
        raise Refusal(
            Reason.TOO_LATE, f"The body did not arrive within {seconds:g} seconds."
        ) from None
    if encoding == "gzip":
        return await asyncio.to_thread(inflate, body, most, "The body", exactly=False)
    return body


async def _collect(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _too_large(most: int, found: int | None = None) -> Refusal:
    size = "more" if found is None else f"{found} bytes"
    return Refusal(
        Reason.TOO_LARGE, f"The body has {size}; at most {most} bytes are taken in one request."
    )


_JSON = threading.Lock()


def rest_app(models: Models, metrics: Metrics) -> FastAPI:
    """The application; a request that is refused answers {"error": "…"}."""
    app = FastAPI(title="kerasseg serve", docs_url=None, redoc_url=None, openapi_url=None)
    limits = models.limits
    threads = ThreadPoolExecutor(limits.at_once, thread_name_prefix="rest")
    slots = asyncio.Semaphore(limits.at_once)

    async def predict(request: Request, name: str, version: int | None) -> Response:
        until = time.monotonic() + limits.seconds
        if slots.locked():
            raise Refusal(
                Reason.TOO_MANY, f"{limits.at_once} requests are under way: try again later."
            )
        async with slots:
            body = await read_body(request, limits.request_bytes, limits.seconds)
            work = _predict(models, metrics, name, version, body, until)
            del body
            text = await asyncio.get_running_loop().run_in_executor(threads, work)
        return _json(text)

    @app.post("/v1/models/{name}:predict")
    async def predict_newest(request: Request, name: str) -> Response:
        return await predict(request, name, None)

    @app.post("/v1/models/{name}/versions/{version}:predict")
    async def predict_version(request: Request, name: str, version: int) -> Response:
        return await predict(request, name, version)

    @app.get("/v1/models/{name}")
    def status(name: str) -> Response:
        return _message(status_response(models, name, None))

    @app.get("/v1/models/{name}/versions/{version}")
    def version_status(name: str, version: int) -> Response:
        return _message(status_response(models, name, version))

    @app.get("/v1/models/{name}/metadata")
    def metadata(name: str) -> Response:
        return _metadata(name, models.model(name).get(None))

    @app.get("/v1/models/{name}/versions/{version}/metadata")
    def version_metadata(name: str, version: int) -> Response:
        return _metadata(name, models.model(name).get(version))

    @app.get("/healthz")
    async def alive() -> Response:
        return _json('{"status": "alive"}')

    @app.get("/readyz")
    async def ready() -> Response:
        if not models.ready:
            raise Refusal(Reason.UNAVAILABLE, "Not every model has a version that answers.")
        return _json('{"status": "ready"}')

    @app.get("/metrics")
    def prometheus() -> Response:
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
        return _error(500, f"{type(error).__name__}: {error}")

    return app


def _predict(
    models: Models, metrics: Metrics, name: str, version: int | None, body: bytes, until: float
) -> Callable[[], str]:
    held = [body]

    def work() -> str:
        with metrics.request("rest") as labels:
            labels["model"] = name
            # A model that is not there is said before anything is parsed.
            loaded = models.model(name).get(version)
            with _json_turn(until):
                parsed = parse_body(held.pop(), models.limits)
                signature = parsed.get("signature_name") or answers.DEFAULT_SIGNATURE
                labels["signature"] = signature
                tensors = json_inputs(parsed, loaded.specs(signature))
                count = len(parsed["instances"]) if "instances" in parsed else None
                del parsed, loaded
            request = answers.Request(name, version, signature, until)
            outputs, _ = answers.answer(models, request, lambda loaded: tensors)
            with _json_turn(until):
                return json.dumps(columns(outputs) if count is None else rows(outputs, count))

    return work


@contextmanager
def _json_turn(until: float) -> Iterator[None]:
    """Numbers of JSON are large objects in Python: one request at a time may have them."""
    if not _JSON.acquire(timeout=max(until - time.monotonic(), 0)):
        raise Refusal(Reason.TOO_LATE, "The time for this request was over before its turn came.")
    try:
        yield
    finally:
        _JSON.release()


def _metadata(name: str, loaded: Any) -> Response:
    return _message(metadata_response(name, loaded))


def _message(message: Any) -> Response:
    return _json(
        MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


def _error(status: int, sentence: str) -> Response:
    return Response(
        json.dumps({"error": sentence}), status_code=status, media_type="application/json"
    )
