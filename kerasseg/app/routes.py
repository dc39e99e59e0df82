"""The addresses of the page, as a FastAPI application."""

import asyncio
import contextlib
import dataclasses
import functools
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from kerasseg import anatomy
from kerasseg.app import uploads, views
from kerasseg.app.jobs import start_job
from kerasseg.app.prompts import Place, takes_prompts
from kerasseg.app.runs import Choices, Runs
from kerasseg.app.sessions import Session, Sessions
from kerasseg.datasets.case import Case
from kerasseg.datasets.phantom import PhantomSource
from kerasseg.errors import UserError
from kerasseg.serving.server.limits import MIB, Limits, Reason, Refusal, bad_input, without_folders
from kerasseg.serving.server.models import WorkQueue, wait
from kerasseg.serving.server.requests import Requests, read_body

_STATIC = Path(__file__).parent / "static"
_COOKIE, _TOKEN_COOKIE = "kerasseg_session", "kerasseg_token"
_MEDIA = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "style-src 'self'; img-src 'self' data: blob:; connect-src 'self' data: blob:; "
        "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_EXAMPLE = PhantomSource("example", "example", 0, (64, 80, 72), 3)
"""It takes seconds to make, so it is made once."""
_CLEAN_UP_SECONDS = 60.0


@functools.cache
def example_case() -> Case:
    """Return the built-in example, a head that was made up, with its truth."""
    return _EXAMPLE.load()


@dataclass
class Page:
    """Everything that the application works with.

    Attributes:
        runs: The runs that it offers.
        sessions: What visitors have sent and got.
        queue: Predictions, one after the other.
        limits: What visitors may send.
        token: What they must know, or None.
        hosts: The names by which the server is asked; None takes any.
        embedded_in: The sites that may show the page in a frame.
        load: Held while a file is unpacked or a scan is read, so that only one is in memory.
    """

    runs: Runs
    sessions: Sessions
    queue: WorkQueue
    limits: Limits
    token: str | None = None
    hosts: frozenset[str] | None = None
    embedded_in: tuple[str, ...] = ()
    load: Any = field(default_factory=threading.Lock)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of every answer."""
        frames = " ".join(("'self'", *self.embedded_in)) if self.embedded_in else "'none'"
        headers = {name: value.format(frames=frames) for name, value in _HEADERS.items()}
        return headers if self.embedded_in else headers | {"X-Frame-Options": "DENY"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Look(_Strict):
    files: dict[str, int]


class _NewScan(_Strict):
    run: int = 0
    roles: dict[str, str] = {}


class _Prompt(_Strict):
    run: int = 0
    corners: list[Place] = Field(min_length=1, max_length=2)


class _NewJob(_Strict):
    scan: str
    run: int = 0
    choices: Choices = Field(default_factory=Choices)


def page_app(page: Page) -> FastAPI:
    """Return the application; it answers a request that is refused with {"error": "…"}."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def clean_up() -> None:
            while True:
                await asyncio.sleep(_CLEAN_UP_SECONDS)
                await asyncio.to_thread(page.sessions.expire)

        threading.Thread(target=example_case, daemon=True).start()
        task = asyncio.create_task(clean_up())
        yield
        task.cancel()

    app = FastAPI(
        title="kerasseg app", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    requests, headers = Requests(page.limits), page.headers
    small = dataclasses.replace(page.limits, request_bytes=MIB)  # JSON

    async def body_of(request: Request, limits: Limits, work: Any = None) -> bytes:
        with requests.request() as held:
            until = time.monotonic() + limits.seconds
            body = await read_body(request, requests, held, limits, until)
            if work is not None:
                await requests.compute(held, lambda: work(body))
        return body

    def sent(kind: type[_Strict]) -> Any:
        # FastAPI itself would read a body of any size, and before the session is looked at.
        async def read(request: Request) -> _Strict:
            _session(request, page)
            return kind.model_validate_json(await body_of(request, small))

        return Depends(read)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            _check_sender(request, page)
            response = await answer(request)
        except Refusal as refusal:
            response = _error(refusal.reason.http_status, refusal.sentence)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    @app.get("/")
    def index(request: Request) -> Response:
        session = page.sessions.find(request.cookies.get(_COOKIE)) or page.sessions.new()
        response = Response((_STATIC / "index.html").read_bytes(), media_type="text/html")
        cookies = {_COOKIE: session.key}
        if page.token:
            cookies[_TOKEN_COOKIE] = page.token
        framed = bool(page.embedded_in)
        secure = framed or request.url.scheme == "https"
        for name, value in cookies.items():
            site: Literal["none", "strict"] = "none" if framed else "strict"
            response.set_cookie(name, value, httponly=True, samesite=site, secure=secure)
            if framed:  # a browser keeps it only so; Starlette writes it from Python 3.14 on
                key, cookie = response.raw_headers[-1]
                response.raw_headers[-1] = (key, cookie + b"; Partitioned")
        return response

    known = {path.name: path for path in _STATIC.iterdir() if path.suffix in _MEDIA}

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in known:
            raise Refusal(Reason.NOT_FOUND, "There is no such file.")
        return FileResponse(
            known[name],
            media_type=_MEDIA[known[name].suffix],
            headers={"Cache-Control": "no-cache"},
        )

    @app.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": page.runs.state}

    @app.get("/api/state")
    def state(request: Request) -> Any:
        session = _session(request, page)
        with session.lock:
            return {
                "ready": page.runs.state,
                "runs": [run.describe(i) for i, run in enumerate(page.runs.offered)],
                "scans": [scan.describe() for scan in session.scans.values()],
                "jobs": [job.describe(page.queue) for job in session.jobs.values()],
                "tray": uploads.describe_tray(session),
            }

    @app.get("/api/facts")
    def facts() -> Any:
        from kerasseg.figures.style import OUTCOME_COLOURS

        return {
            "modalities": dict(anatomy.MODALITY_TITLES),
            "aliases": list(anatomy.MODALITY_ALIASES),
            "colours": dict(anatomy.COLOURS),
            "labels": dict(anatomy.SUBREGIONS),
            "tumour": anatomy.TUMOUR,
            "outcomes": list(OUTCOME_COLOURS.items()),
        }

    @app.post("/api/look")
    def look(asked: Annotated[_Look, sent(_Look)]) -> Any:
        return uploads.look(asked.files, page.limits)

    @app.put("/api/files")
    async def receive(request: Request, name: str, role: str = "") -> Any:
        session = _session(request, page)
        uploads.kind_of(name)  # before a byte of it is read

        def unpack(body: bytes) -> None:
            with page.load:
                uploads.receive(session, name, role, body, page.limits)

        await body_of(request, page.limits, unpack)
        return uploads.describe_tray(session)

    @app.delete("/api/files")
    def clear(request: Request) -> Any:
        _session(request, page).clear_tray()
        return []

    @app.post("/api/scans")
    def scan(request: Request, asked: Annotated[_NewScan, sent(_NewScan)]) -> Any:
        session = _session(request, page)
        data = page.runs.run(asked.run).experiment.data
        with page.load:
            return uploads.make_scan(session, data, asked.roles).describe()

    @app.post("/api/example")
    def example(request: Request) -> Any:
        session = _session(request, page)
        with page.load:
            return session.add_scan(example_case()).describe()

    @app.post("/api/jobs")
    def job(request: Request, asked: Annotated[_NewJob, sent(_NewJob)]) -> Any:
        session = _session(request, page)
        scan = session.scan(asked.scan)
        started = start_job(
            session, scan, asked.run, asked.choices, page.runs, page.queue, page.limits
        )
        return started.describe(page.queue)

    @app.delete("/api/jobs/{key}")
    def cancel(request: Request, key: str) -> Any:
        found = _session(request, page).job(key)
        found.cancel()
        return found.describe(page.queue)

    @app.get("/api/scans/{key}/{what}.nii.gz")
    def scan_view(request: Request, key: str, what: str) -> Response:
        found = _session(request, page).scan(key)
        return _bytes(views.nifti(views.scan_view(found, what), found))

    @app.post("/api/scans/{key}/prompt")
    def prompt(request: Request, key: str, asked: Annotated[_Prompt, sent(_Prompt)]) -> Response:
        found = _session(request, page).scan(key)
        if not takes_prompts(page.runs.run(asked.run).experiment):
            raise bad_input("This model takes no points and boxes: choose a SAM of axial slices.")

        def answer() -> bytes:
            mask = page.runs.prompter(asked.run).answer(found, asked.run, asked.corners)
            return np.packbits(mask).tobytes()

        return _bytes(wait(page.queue.put(answer), page.limits.seconds))

    @app.get("/api/scans/{key}/values")
    def values(request: Request, key: str, d: int, h: int, w: int, job: str = "") -> Any:
        session = _session(request, page)
        label = session.job(job) if job else None
        return views.values_at(session.scan(key), (d, h, w), label)

    @app.get("/api/scans/{key}/plane.png")
    def plane(
        request: Request, key: str, axis: int, index: int, modality: int = 0, job: str = ""
    ) -> Response:
        session = _session(request, page)
        label = session.job(job) if job else None
        png = views.plane(session.scan(key), axis, index, modality, label)
        return Response(png, media_type="image/png")

    @app.get("/api/jobs/{key}/{what}.nii.gz")
    def job_view(request: Request, key: str, what: str) -> Response:
        session = _session(request, page)
        found = session.job(key)
        return _bytes(views.nifti(views.job_view(found, what, session), found.scan))

    @app.put("/api/jobs/{key}/drawing")
    async def drawing(request: Request, key: str) -> Any:
        found = _session(request, page).job(key)
        await body_of(request, page.limits, lambda body: views.read_drawing(found, body))
        return found.describe(page.queue)

    @app.get("/api/jobs/{key}/download/{what}")
    def download(request: Request, key: str, what: str) -> Response:
        path = views.download(_session(request, page).job(key), what)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, Refusal):
            return _error(error.reason.http_status, error.sentence)
        if isinstance(error, UserError):
            return _error(400, without_folders(str(error)))
        if isinstance(error, HTTPException):
            return _error(error.status_code, "There is nothing at this address.")
        return _error(400, "The request is not as this page sends it.")

    for kind in (Refusal, UserError, HTTPException, RequestValidationError, ValidationError):
        app.add_exception_handler(kind, refused)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        response = _error(500, "The server failed; its log says why.")
        response.headers.update(headers)  # this answer does not pass through `guard`
        return response

    return app


def _error(status: int, sentence: str) -> Response:
    return Response(json.dumps({"error": sentence}), status, media_type="application/json")


def _bytes(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")


def _session(request: Request, page: Page) -> Session:
    session = page.sessions.find(request.cookies.get(_COOKIE))
    if session is None:
        raise Refusal(Reason.NOT_FOUND, "Your session has ended: load the page again.")
    return session


def _check_sender(request: Request, page: Page) -> None:
    """Refuse who asks by another host's name, from another page, or without the token."""
    host = request.headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if page.hosts is not None and name not in page.hosts:
        raise Refusal(Reason.NOT_FOUND, "This server goes by another name.")
    if request.method not in ("GET", "HEAD"):
        # The browser's own word where it gives one: behind a proxy the host may be another.
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        same = site == "same-origin" if site else origin is None or urlsplit(origin).netloc == host
        if not same:
            raise Refusal(Reason.NOT_FOUND, "This request comes from another page.")
    if page.token is None or request.url.path == "/healthz":
        return
    given = request.cookies.get(_TOKEN_COOKIE) or ""
    if request.url.path == "/":
        given = request.query_params.get("token") or given
    if not hmac.compare_digest(given.encode(), page.token.encode()):
        raise Refusal(Reason.NOT_FOUND, "Open the page with the token: /?token=…")
