"""The requests of both protocols: how much of the memory they may have, and their metrics.

A client may be slow, or may never send the rest of its request. So a request takes memory for
what it has sent, and one of the few places in which something is computed only when it is whole.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from kerasseg.serving.server.limits import Limits, Reason, Refusal, bad_input, inflate
from kerasseg.serving.server.models import Models

Result = TypeVar("Result")

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_OTHER = "other"
"""The label of names that nobody serves: a caller must not be able to make labels without end."""


@dataclass(eq=False)
class Held:
    """A request on its way: the bytes of memory it has, and what can be cancelled of it.

    Attributes:
        size: Bytes.
        read: What its client has yet to do, such as to send the next bytes; None if it is the
            server's turn.
        since: When the server began to wait for that, by the event loop's clock.
        task: Its place in a model's queue.
        gone: Whether its sender has hung up.
    """

    size: int = 0
    read: asyncio.Future | None = None
    since: float = 0.0
    task: Future | None = field(default=None, repr=False)
    gone: bool = False

    def queued(self, task: Future) -> None:
        """Remember the place in a queue; it is given up at once if the sender is gone already."""
        self.task = task
        if self.gone:
            task.cancel()

    def hung_up(self) -> None:
        """Take the request out of the queue, as nobody waits for its answer."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()


class Requests:
    """The memory and the places of the requests that are read or computed at the same time.

    It belongs to one event loop. When there is no memory left, the request that has been silent for
    the longest time makes room, once that is more than `Limits.grace_seconds`; those that wait for
    room get it the newest first, as the oldest may be of clients who only mean to be in the way.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most = limits.at_once * limits.request_bytes
        self._places = limits.at_once
        self._threads = ThreadPoolExecutor(limits.at_once, thread_name_prefix="request")
        self._held: dict[Held, None] = {}
        self._waiting: list[tuple[Held, int, asyncio.Future]] = []
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def request(self) -> Iterator[Held]:
        """Yield a request without memory yet; what it has is free again after the block."""
        held = Held()
        self._held[held] = None
        try:
            yield held
        finally:
            del self._held[held]
            self._give_room()

    async def resize(self, held: Held, size: int) -> None:
        """Let a request have `size` bytes of memory, when there is room for more than it has.

        Raises `Refusal` if there is none within `Limits.silent_seconds`.
        """
        if size <= held.size or self._fits(held, size):
            held.size = size
            self._give_room()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((held, size, turn))
        self._give_room()
        try:
            await asyncio.wait([turn], timeout=self._limits.silent_seconds)
        finally:
            came = turn.done()
            turn.cancel()
        if not came:
            raise Refusal(
                Reason.TOO_MANY, "Other requests take all of the memory: try again later."
            )

    async def wait_for_client(
        self, held: Held, part: Awaitable[Result], seconds: float | None = None
    ) -> Result:
        """Return what comes of a step that is the client's: its next bytes, or reading the answer.

        It may take `seconds`, instead of `Limits.silent_seconds`. Raises `Refusal` after that time,
        and if the request has to make room for others.
        """
        most = self._limits.silent_seconds if seconds is None else max(seconds, 0)
        held.since = asyncio.get_running_loop().time()
        held.read = step = asyncio.ensure_future(part)
        self._give_room()
        try:
            await asyncio.wait([step], timeout=most)
        finally:
            held.read = None
            if not step.done():
                step.cancel()
        if step.cancelled():
            raise Refusal(
                Reason.TOO_MANY,
                "The rest of the request did not come, and others needed its place: send it again.",
            )
        if not step.done():
            raise Refusal(
                Reason.TOO_LATE, f"The rest of the request did not come within {most:g} seconds."
            )
        return step.result()

    async def compute(self, held: Held, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, which runs in a thread.

        Raises `Refusal` if as many requests are computed already as may be.
        """
        if not self._places:
            raise Refusal(
                Reason.TOO_MANY,
                f"{self._limits.at_once} requests are under way: try again later.",
            )
        self._places -= 1
        task = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # A thread cannot be stopped, so the place is taken until it ends, whoever has hung up.
        task.add_done_callback(self._free_place)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            held.hung_up()
            raise

    def _free_place(self, task: asyncio.Future) -> None:
        self._places += 1
        if not task.cancelled():
            task.exception()  # it is nobody's if the sender has hung up

    def _fits(self, held: Held, size: int) -> bool:
        return sum(each.size for each in self._held if each is not held) + size <= self._most

    def _give_room(self) -> None:
        """Give room to those that wait for it, as far as there is some, and look again later."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            held, size, turn = self._waiting[-1]
            if not turn.done() and not self._fits(held, size):
                silent = min(
                    (each for each in self._held if each.read),
                    key=lambda each: each.since,
                    default=None,
                )
                if silent is None:
                    return
                until = silent.since + self._limits.grace_seconds
                if until > loop.time():
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = loop.call_at(until, self._give_room)
                    return
                assert silent.read is not None
                silent.read.cancel()
                silent.size, silent.read = 0, None
                continue
            self._waiting.pop()
            if not turn.done():
                held.size = size
                turn.set_result(None)


async def read_body(
    request: Any, requests: Requests, held: Held, limits: Limits, until: float
) -> bytes:
    """Return the whole body of a Starlette request, inflated if its Content-Encoding is gzip.

    Raises `Refusal` for more bytes than a request may have, announced or sent; for a sender that is
    silent for too long, or takes longer than `until`; `ClientDisconnect` if the sender hangs up.
    """
    most = limits.request_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(f"{announced} bytes", most)
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding not in ("", "identity", "gzip"):
        raise bad_input(f"Content-Encoding is {encoding}, expected gzip or none.")
    body, stream = bytearray(), request.stream()
    while True:
        patience = min(limits.silent_seconds, until - time.monotonic())
        chunk = await requests.wait_for_client(held, anext(stream, None), patience)
        if chunk is None:
            break
        if len(body) + len(chunk) > most:
            raise _too_large("more", most)
        await requests.resize(held, len(body) + len(chunk))
        body += chunk
    if encoding == "gzip":
        await requests.resize(held, len(body) + most)
        plain = await asyncio.to_thread(inflate, bytes(body), most, "The body", Reason.TOO_LARGE)
        await requests.resize(held, len(plain))
        return plain
    return bytes(body)


def _too_large(size: str, most: int) -> Refusal:
    return Refusal(
        Reason.TOO_LARGE, f"The body has {size}; at most {most} bytes are taken in one request."
    )


class Metrics:
    """Numbers and seconds of requests, lengths of queues, versions, and memory of the process."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        names = ["model", "signature", "protocol"]
        self._requests = Counter(
            "kerasseg_requests",
            "Predict requests by the status code that answered them.",
            [*names, "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "kerasseg_request_seconds",
            "Seconds of a predict request, its waiting included.",
            names,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_ModelCollector(models))
        ProcessCollector(registry=self._registry)

    @contextmanager
    def request(self, protocol: str) -> Iterator[dict[str, str]]:
        """Count and time the request in the block, which fills in `model` and `signature`."""
        labels = {"model": "", "signature": ""}
        started, code = time.perf_counter(), "OK"
        try:
            yield labels
        except Refusal as refusal:
            code = refusal.reason.name
            raise
        except BaseException:
            code = "FAILED"
            raise
        finally:
            names = (*self._known(**labels), protocol)
            self._requests.labels(*names, code).inc()
            self._seconds.labels(*names).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)

    def _known(self, model: str, signature: str) -> tuple[str, str]:
        try:
            loaded = self._models.model(model).get(None)
        except Refusal:
            return _OTHER, _OTHER
        return model, signature if signature in loaded.inputs else _OTHER


class _ModelCollector(Collector):
    """The gauges that are read from the models when Prometheus asks."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterable[Any]:
        waiting = GaugeMetricFamily(
            "kerasseg_queue_length", "Requests that wait.", labels=["model"]
        )
        loaded = GaugeMetricFamily(
            "kerasseg_loaded_version",
            "1 for the version that answers.",
            labels=["model", "version"],
        )
        for model in self._models.all():
            waiting.add_metric([model.name], model.queue.length)
            if model.version is not None:
                loaded.add_metric([model.name, str(model.version)], 1)
        return [waiting, loaded]
