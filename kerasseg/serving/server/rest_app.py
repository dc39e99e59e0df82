"""TensorFlow Serving's REST API v1, health and metrics, as a FastAPI application."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from google.protobuf.json_format import MessageToJson
from starlette.exceptions import HTTPException

from kerasseg.serving.server import answer as answers
from kerasseg.serving.server.grpc_services import metadata_response, status_response
from kerasseg.serving.server.json_inputs import json_inputs, parse_body
from kerasseg.serving.server.json_outputs import columns, rows
from kerasseg.serving.server.metrics import Metrics
from kerasseg.serving.server.models import Models
from kerasseg.serving.server.read_body import read_body
from kerasseg.serving.server.refusal import Reason, Refusal

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
