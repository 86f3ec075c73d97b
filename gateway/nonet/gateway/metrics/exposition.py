"""Prometheus exposition: a collector over the counters, and the text of ``/metrics`` in the format asked for.

Triton's counters carry no ``_total`` in their names, which neither Prometheus' naming rules nor OpenMetrics
allow for the type *counter*; they are exposed with the type *unknown*, so that the names stay exactly
Triton's in both formats. ``rate()`` does not look at the type.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from nonet.gateway.core.records import ANSWERED_BY_CACHE
from nonet.gateway.metrics.counters import Metrics, ModelCounters

__all__ = ["GatewayState", "MetricsPage"]

_MICRO = 1e6
_MODEL = ("model", "version")

_TRITON: tuple[tuple[str, str, Callable[[ModelCounters], float]], ...] = (
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda of: of.success,
    ),
    (
        "nv_inference_request_failure",
        "Number of failed inference requests, all batch sizes",
        lambda of: of.failure,
    ),
    (
        "nv_inference_count",
        "Number of inferences performed (rows of all batches, without requests answered from the cache)",
        lambda of: of.rows,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (batches, without requests answered from the cache)",
        lambda of: of.executions,
    ),
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (with requests answered from the cache)",
        lambda of: of.duration * _MICRO,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (with requests answered from the cache)",
        lambda of: of.queue * _MICRO,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (without requests answered from the cache)",
        lambda of: of.compute_input * _MICRO,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (without requests answered from the cache)",
        lambda of: of.compute_infer * _MICRO,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (without requests answered from the "
        "cache)",
        lambda of: of.compute_output * _MICRO,
    ),
    (
        "nv_cache_num_hits_per_model",
        "Number of requests answered without an execution of their own (kept answer or shared execution)",
        lambda of: sum(of.cache.get(outcome, 0) for outcome in ANSWERED_BY_CACHE),
    ),
    (
        "nv_cache_num_misses_per_model",
        "Number of requests that were looked up in the cache and not found",
        lambda of: of.cache.get("miss", 0),
    ),
)


class GatewayState:
    """What is not counted but looked at when a scrape comes. Each argument is called on the event loop.

    Args:
        ready: whether the gateway is ready.
        utilisation: device -> share of its lanes that work, 0 to 1.
        models: number of model versions that can be called.
        failed: number of model versions that should be, but could not be loaded.
        version: of Nonet.
        jobs: number of jobs by state; None where there are no jobs.
        workers: number of worker processes.
        webhooks: number of webhooks of jobs by state.
        unserved: number of jobs that nobody can take, by their kind and what is missing.
    """

    def __init__(
        self,
        *,
        ready: Callable[[], bool],
        utilisation: Callable[[], Mapping[str, float]],
        models: Callable[[], int],
        failed: Callable[[], int],
        version: str,
        jobs: Callable[[], Mapping[str, int]] | None = None,
        workers: Callable[[], int] = lambda: 0,
        webhooks: Callable[[], Mapping[str, int]] = dict,
        unserved: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        self.ready = ready
        self.utilisation = utilisation
        self.models = models
        self.failed = failed
        self.version = version
        self.jobs = jobs
        self.workers = workers
        self.webhooks = webhooks
        self.unserved = unserved

    def at_this_moment(self) -> GatewayState:
        """The same with the values of now, which another thread may read."""
        asked = {name: read() for name, read in vars(self).items() if callable(read)}
        held: Any = {name: functools.partial(_same, value) for name, value in asked.items()}
        return GatewayState(**held, version=self.version)


def _same(value: Any) -> Any:
    return value


class _GatewayCollector(Collector):
    def __init__(self, metrics: Metrics, state: GatewayState) -> None:
        self._metrics = metrics
        self._state = state

    def collect(self) -> Iterator[Metric]:
        models = sorted(self._metrics.models.items())
        yield from _triton(models)
        yield from _per_model(models)
        yield from self._faces()
        yield from self._gauges()

    def _faces(self) -> Iterator[Metric]:
        latency = HistogramMetricFamily(
            "nonet_request_duration_seconds",
            "Time of a call from the end of its headers to the end of its answer",
            labels=("route", "model"),
        )
        for labels, histogram in sorted(self._metrics.routes.items()):
            latency.add_metric(labels, histogram.cumulative(), histogram.total)
        yield latency
        yield _counter(
            "nonet_requests",
            "Calls answered, by route and status",
            ("route", "status"),
            self._metrics.statuses,
        )
        yield _counter(
            "nonet_cancelled",
            "Requests whose caller left, by the stage they had reached",
            ("stage",),
            {(stage,): count for stage, count in self._metrics.cancelled.items()},
        )

    def _gauges(self) -> Iterator[Metric]:
        busy = GaugeMetricFamily(
            "nonet_device_utilisation_ratio", "Share of a device's lanes that execute now", labels=("device",)
        )
        for device, share in sorted(self._state.utilisation().items()):
            busy.add_metric((device,), share)
        yield busy
        yield GaugeMetricFamily(
            "nonet_ready",
            "1 if the gateway takes traffic, 0 while it starts or drains",
            int(self._state.ready()),
        )
        yield GaugeMetricFamily(
            "nonet_models_loaded", "Model versions that can be called", self._state.models()
        )
        yield GaugeMetricFamily(
            "nonet_models_failed",
            "Model versions that could not be loaded from the files they have; the index says why",
            self._state.failed(),
        )
        if self._state.jobs is not None:
            jobs = GaugeMetricFamily("nonet_jobs", "Jobs that are remembered, by state", labels=("state",))
            for state, count in sorted(self._state.jobs().items()):
                jobs.add_metric((state,), count)
            yield jobs
            yield GaugeMetricFamily(
                "nonet_job_workers", "Worker processes that run a job now", self._state.workers()
            )
            webhooks = GaugeMetricFamily(
                "nonet_webhooks", "Webhooks of jobs that are remembered, by state", labels=("state",)
            )
            for state, count in sorted(self._state.webhooks().items()):
                webhooks.add_metric((state,), count)
            yield webhooks
            unserved = GaugeMetricFamily(
                "nonet_jobs_unserved",
                "Jobs that wait for a worker that nobody has heard of, by kind and what is missing",
                labels=("kind", "missing"),
            )
            for words, count in sorted(self._state.unserved().items()):
                unserved.add_metric(words, count)
            yield unserved
        build = GaugeMetricFamily(
            "nonet_build_info", "Always 1; the version is the label", labels=("version",)
        )
        build.add_metric((self._state.version,), 1)
        yield build


def _triton(models: list[tuple[tuple[str, str], ModelCounters]]) -> Iterator[Metric]:
    for name, help_text, read in _TRITON:
        family = Metric(name, help_text, "unknown")
        for labels, counters in models:
            family.add_sample(name, dict(zip(_MODEL, labels, strict=True)), read(counters))
        yield family
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Number of requests that wait for execution", labels=_MODEL
    )
    for labels, counters in models:
        pending.add_metric(labels, counters.pending)
    yield pending


def _per_model(models: list[tuple[tuple[str, str], ModelCounters]]) -> Iterator[Metric]:
    for name, help_text, read in (
        ("nonet_inference_duration_seconds", "Time of an answered request in the core", "latency"),
        ("nonet_queue_duration_seconds", "Time an executed request waited in its queue", "queue_time"),
        ("nonet_batch_size", "Rows of an executed batch", "batch_size"),
    ):
        family = HistogramMetricFamily(name, help_text, labels=_MODEL)
        for labels, counters in models:
            histogram = getattr(counters, read)
            family.add_metric(labels, histogram.cumulative(), histogram.total)
        yield family
    for name, help_text, read in (
        ("nonet_queue_depth", "Requests that wait, by model", "pending"),
        (
            "nonet_inflight_steps",
            "Requests of several steps that have taken one and are not at their end",
            "stepping",
        ),
    ):
        gauge = GaugeMetricFamily(name, help_text, labels=_MODEL)
        for labels, counters in models:
            gauge.add_metric(labels, getattr(counters, read))
        yield gauge
    yield _counter(
        "nonet_steps",
        "Steps taken by requests that need several",
        _MODEL,
        {labels: counters.steps for labels, counters in models},
    )
    for name, help_text, label, attribute in (
        ("nonet_request_failures", "Requests that failed, by error code", "code", "failures"),
        ("nonet_shed_requests", "Requests refused to protect the others, by reason", "reason", "shed"),
        ("nonet_cache_requests", "Answered requests, by what the cache did", "outcome", "cache"),
        (
            "nonet_device_requests",
            "Requests executed, by the device they were placed on",
            "device",
            "devices",
        ),
    ):
        yield _counter(
            name,
            help_text,
            (*_MODEL, label),
            {
                (*labels, value): count
                for labels, counters in models
                for value, count in sorted(getattr(counters, attribute).items())
            },
        )
    yield _counter(
        "nonet_deadlines",
        "Requests that had a deadline, by whether they were answered in time",
        (*_MODEL, "outcome"),
        {
            (*labels, outcome): count
            for labels, counters in models
            for outcome, count in (("met", counters.deadlines_met), ("missed", counters.deadlines_missed))
        },
    )
    yield _counter(
        "nonet_batch_failures",
        "Executions that failed as a whole",
        _MODEL,
        {labels: counters.batch_failures for labels, counters in models},
    )


def _counter(
    name: str, help_text: str, label_names: Iterable[str], values: Mapping[Any, float]
) -> CounterMetricFamily:
    """``values``: tuple of label values -> count."""
    family = CounterMetricFamily(name, help_text, labels=tuple(label_names))
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


class MetricsPage:
    """What ``/metrics`` answers."""

    def __init__(self, metrics: Metrics, state: GatewayState) -> None:
        self._metrics = metrics
        self._state = state
        self._others = (PlatformCollector(registry=None), ProcessCollector(registry=None))

    async def answer(self, accept: str = "") -> tuple[bytes, str]:
        """As :meth:`render`, with the page written in a thread: at some hundred models that takes as long as
        many requests, which go on meanwhile. All numbers are those of one moment."""
        return await asyncio.to_thread(self._write, self._collector(), accept)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics 1.0.0 if ``accept`` (the header) prefers or only
        names it, else the Prometheus text format 0.0.4. Never fails on a malformed header."""
        return self._write(self._collector(), accept)

    def _collector(self) -> Collector:
        return _GatewayCollector(self._metrics.copy(), self._state.at_this_moment())

    def _write(self, collector: Collector, accept: str) -> tuple[bytes, str]:
        registry = CollectorRegistry()
        for each in (collector, *self._others):
            registry.register(each)
        if _prefers_openmetrics(accept):
            page: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return page, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _prefers_openmetrics(accept: str) -> bool:
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in quality:
            quality[kind] = max(quality[kind], _quality(parameters))
    return quality["application/openmetrics-text"] > quality["text/plain"]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
