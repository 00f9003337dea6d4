"""Prometheus metrics: of this server's requests and sockets, and of all jobs by what Redis has added up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.domain import STAGES
from pipeline.state import QueueCounts

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = {f"seconds{stage.capitalize()}": stage for stage in STAGES}


class Metrics:
    """The metrics of one server process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pipeline_http_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "pipeline_http_request_seconds", "Seconds until a request was answered.", ["route"], registry=self._registry
        )
        self.sockets = Gauge("pipeline_websockets", "WebSockets that are open.", registry=self._registry)
        self.messages = Counter("pipeline_websocket_messages", "Messages sent to WebSockets.", registry=self._registry)
        self.dropped = Counter(
            "pipeline_websockets_dropped", "WebSockets closed since their client took nothing.", registry=self._registry
        )

    def expose(self, counts: QueueCounts, workers: int) -> bytes:
        """Return all metrics as Prometheus reads them."""
        shared = CollectorRegistry()
        shared.register(_JobMetrics(counts, workers))
        return generate_latest(self._registry) + generate_latest(shared)


class _JobMetrics(Collector):
    """What Redis knows of all jobs."""

    def __init__(self, counts: QueueCounts, workers: int) -> None:
        self._counts = counts
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        waiting = GaugeMetricFamily("pipeline_queue_jobs", "Jobs in the queue.", labels=["state"])
        waiting.add_metric(["waiting"], counts.waiting)
        waiting.add_metric(["running"], counts.running)
        yield waiting
        yield GaugeMetricFamily("pipeline_queue_workers", "Queue workers that live.", self._workers)
        yield self._family("pipeline_jobs", "Jobs that have ended.", "status", "jobs:")
        yield self._family("pipeline_image_errors", "Images that failed, by the error's class.", "error", "errors:")
        images = CounterMetricFamily("pipeline_images", "Images that have an outcome.", labels=["status"])
        for status in ("stored", "skipped", "failed"):
            images.add_metric([status], counts.totals.get(status, 0.0))
        yield images
        seconds = CounterMetricFamily("pipeline_stage_seconds", "Seconds of work in each stage.", labels=["stage"])
        for name, stage in _SECONDS.items():
            seconds.add_metric([stage], counts.totals.get(name, 0.0))
        yield seconds
        size = CounterMetricFamily("pipeline_image_bytes", "Bytes fetched and stored.", labels=["direction"])
        size.add_metric(["in"], counts.totals.get("bytesIn", 0.0))
        size.add_metric(["out"], counts.totals.get("bytesOut", 0.0))
        yield size

    def _family(self, name: str, about: str, label: str, prefix: str) -> CounterMetricFamily:
        family = CounterMetricFamily(name, about, labels=[label])
        for key, value in self._counts.totals.items():
            if key.startswith(prefix):
                family.add_metric([key.removeprefix(prefix)], value)
        return family
