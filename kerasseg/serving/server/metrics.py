"""Prometheus metrics of a server."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from kerasseg.serving.server.limits import Refusal
from kerasseg.serving.server.models import Models

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_OTHER = "other"
"""The label of names that nobody serves: a caller must not be able to make labels without end."""


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
