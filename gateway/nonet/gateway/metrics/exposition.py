"""Prometheus exposition: a collector over the counters, and the text of ``/metrics`` in the format asked for.

Triton's counters carry no ``_total`` in their names. In the text format they are counters as in Triton, since
agents drop what has no type; OpenMetrics does not allow that, so there, where the names matter as much, their
type is *unknown*.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from nonet.gateway.core.records import ANSWERED_BY_CACHE
from nonet.gateway.metrics.counters import Histogram, Metrics, ModelCounters
from nonet.gateway.metrics.siblings import Siblings

_UNTYPED_COUNTER = re.compile(rb"^# TYPE (nv_\w+) untyped$", re.MULTILINE)
_KINDS: Mapping[str, type[Any]] = {
    "unknown": UnknownMetricFamily,
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}

# name, kind, further label ("" for none), what is read of a model's counters, meaning
# fmt: off
_OF_MODELS: tuple[tuple[str, str, str, Callable[[ModelCounters], Any], str], ...] = (
    ("nv_inference_request_success", "unknown", "", lambda of: of.success,
     "Number of successful inference requests, all batch sizes"),
    ("nv_inference_request_failure", "unknown", "", lambda of: of.failure,
     "Number of failed inference requests, all batch sizes"),
    ("nv_inference_count", "unknown", "", lambda of: of.rows,
     "Number of inferences performed (rows of all batches, without requests answered from the cache)"),
    ("nv_inference_exec_count", "unknown", "", lambda of: of.executions,
     "Number of model executions performed (batches, without requests answered from the cache)"),
    ("nv_inference_request_duration_us", "unknown", "", lambda of: of.duration * 1e6,
     "Cumulative inference request duration in microseconds (with requests answered from the cache)"),
    ("nv_inference_queue_duration_us", "unknown", "", lambda of: of.queue * 1e6,
     "Cumulative inference queuing duration in microseconds (with requests answered from the cache)"),
    ("nv_inference_compute_input_duration_us", "unknown", "", lambda of: of.compute_input * 1e6,
     "Cumulative compute input duration in microseconds (without requests answered from the cache)"),
    ("nv_inference_compute_infer_duration_us", "unknown", "", lambda of: of.compute_infer * 1e6,
     "Cumulative compute inference duration in microseconds (without requests answered from the cache)"),
    ("nv_inference_compute_output_duration_us", "unknown", "", lambda of: of.compute_output * 1e6,
     "Cumulative inference compute output duration in microseconds (without requests answered from the "
     "cache)"),
    ("nv_cache_num_hits_per_model", "unknown", "",
     lambda of: sum(of.cache.get(outcome, 0) for outcome in ANSWERED_BY_CACHE),
     "Number of requests answered without an execution of their own (kept answer or shared execution)"),
    ("nv_cache_num_misses_per_model", "unknown", "", lambda of: of.cache.get("miss", 0),
     "Number of requests that were looked up in the cache and not found"),
    ("nv_inference_pending_request_count", "gauge", "", lambda of: of.pending,
     "Number of requests that wait for execution"),
    ("nonet_inference_duration_seconds", "histogram", "", lambda of: of.latency,
     "Time of an answered request in the core"),
    ("nonet_queue_duration_seconds", "histogram", "", lambda of: of.queue_time,
     "Time an executed request waited in its queue"),
    ("nonet_batch_size", "histogram", "", lambda of: of.batch_size, "Rows of an executed batch"),
    ("nonet_queue_depth", "gauge", "", lambda of: of.pending, "Requests that wait, by model"),
    ("nonet_inflight_steps", "gauge", "", lambda of: of.stepping,
     "Requests of several steps that have taken one and are not at their end"),
    ("nonet_steps", "counter", "", lambda of: of.steps, "Steps taken by requests that need several"),
    ("nonet_request_failures", "counter", "code", lambda of: of.failures,
     "Requests that failed, by error code"),
    ("nonet_shed_requests", "counter", "reason", lambda of: of.shed,
     "Requests refused to protect the others, by reason"),
    ("nonet_cache_requests", "counter", "outcome", lambda of: of.cache,
     "Answered requests, by what the cache did"),
    ("nonet_device_requests", "counter", "device", lambda of: of.devices,
     "Requests executed, by the device they were placed on"),
    ("nonet_deadlines", "counter", "outcome",
     lambda of: {"met": of.deadlines_met, "missed": of.deadlines_missed},
     "Requests that had a deadline, by whether they were answered in time"),
    ("nonet_batch_failures", "counter", "", lambda of: of.batch_failures,
     "Executions that failed as a whole"),
    ("nonet_energy_joules", "counter", "device", lambda of: of.joules,
     "Energy of executions: measured where the processor tells it, else by the watts declared"),
    ("nonet_cost", "counter", "device", lambda of: of.cost,
     "Price of executions by what an hour of the device is declared to cost, in that currency"),
    ("nonet_hung_executions", "counter", "", lambda of: of.hung,
     "Executions that took so long that they were given up"),
    ("nonet_judged_rows", "counter", "", lambda of: of.judged,
     "Rows answered by a model that says of each whether it is unsure of it"),
    ("nonet_unsure_rows", "counter", "", lambda of: of.unsure,
     "Rows of which the model said that it is unsure; their growing share is a drift of the inputs"),
)

# name, kind, labels, meaning
_OF_THE_PROCESS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("nonet_request_duration_seconds", "histogram", ("route", "model"),
     "Time of a call from the end of its headers to the end of its answer"),
    ("nonet_requests", "counter", ("route", "status"), "Calls answered, by route and status"),
    ("nonet_cancelled", "counter", ("stage",), "Requests whose caller left, by the stage they had reached"),
    ("nonet_device_utilisation_ratio", "gauge", ("device",), "Share of a device's lanes that execute now"),
    ("nonet_lost_lanes", "gauge", ("device",),
     "Threads of this process that are still in an execution that was given up"),
    ("nonet_hedges", "counter", ("outcome",),
     "Late executions that were run on a second device, too, by whether that one answered first"),
    ("nonet_device_ejected", "gauge", ("device",),
     "1 while a device is left alone because it is slow or fails beyond its peers"),
    ("nonet_device_ejections", "counter", ("device",), "How often a device was so left alone"),
    ("nonet_ready", "gauge", (), "1 if the gateway takes traffic, 0 while it starts or drains"),
    ("nonet_models_loaded", "gauge", (), "Model versions that can be called"),
    ("nonet_models_failed", "gauge", (),
     "Model versions that could not be loaded from the files they have; the index says why"),
    ("nonet_resident_bytes", "gauge", (),
     "Estimated memory of the networks that are loaded, where repository.max_resident_bytes bounds it"),
    ("nonet_network_loads", "counter", (), "Networks loaded into that memory, the first times included"),
    ("nonet_network_evictions", "counter", (), "Networks put out of that memory for others"),
    ("nonet_versions_put_back", "counter", ("model",),
     "Versions before a worse one that were published again, by model"),
    ("nonet_shadow_rows", "counter", ("model",),
     "Rows of live requests that a new version answered beside the one that serves"),
    ("nonet_shadow_runs_ended", "counter", ("model", "outcome"),
     "New versions tried on live requests, by whether they took over or were dropped"),
    ("nonet_jobs", "gauge", ("state",), "Jobs that are remembered, by state"),
    ("nonet_job_workers", "gauge", (), "Worker processes that run a job now"),
    ("nonet_webhooks", "gauge", ("state",), "Webhooks of jobs that are remembered, by state"),
    ("nonet_jobs_unserved", "gauge", ("kind", "missing"),
     "Jobs that wait for a worker that nobody has heard of, by kind and what is missing"),
    ("nonet_shared_cache_lookups", "counter", ("outcome",),
     "Looks for an answer in the Redis that gateways share, by what came of them"),
    ("nonet_shared_cache_writes", "counter", ("outcome",),
     "Answers for the Redis that gateways share, by what became of them"),
    ("nonet_redis_failures", "counter", ("kind",), "What went wrong with the Redis that gateways share"),
    ("nonet_redis_resting", "gauge", (),
     "1 while the Redis that gateways share is left alone because it does not answer"),
    ("nonet_trace_spans", "counter", ("outcome",),
     "Spans of traced requests, by whether they were sent, lost with their message or dropped before"),
    ("nonet_build_info", "gauge", ("version",), "Always 1; the version is the label"),
)
# fmt: on


State = Callable[[], Mapping[str, Any]]
"""What is not counted but looked at when a scrape comes, on the event loop: the value of each metric of the
process by name, or its values by label. What is left out is not shown."""


class _GatewayCollector(Collector):
    """The numbers of the moment at which it is made, which another thread may read."""

    def __init__(self, metrics: Metrics, state: State) -> None:
        looked = state()  # which may add to the counters
        now = metrics.copy()
        self._models = sorted(now.models.items())
        self._process: dict[str, Any] = {
            "nonet_request_duration_seconds": now.routes,
            "nonet_requests": now.statuses,
            "nonet_cancelled": now.cancelled,
            **looked,
        }

    def collect(self) -> Iterator[Metric]:
        for name, kind, label, of_model, meaning in _OF_MODELS:
            labels = ("model", "version", label) if label else ("model", "version")
            values: Iterable[Any] = ((key, of_model(counters)) for key, counters in self._models)
            if label:
                values = (
                    ((*key, each), count) for key, value in values for each, count in sorted(value.items())
                )
            yield _family(kind, name, meaning, labels, values)
        for name, kind, names, meaning in _OF_THE_PROCESS:
            if (value := self._process.get(name)) is not None:
                yield _family(kind, name, meaning, names, sorted(value.items()) if names else [((), value)])


def _family(kind: str, name: str, meaning: str, labels: tuple[str, ...], values: Iterable[Any]) -> Metric:
    """``values``: a label's value, or a tuple of them -> a number or a histogram."""
    family = _KINDS[kind](name, meaning, labels=labels)
    for key, value in values:
        key = key if isinstance(key, tuple) else (key,)
        if isinstance(value, Histogram):
            family.add_metric(key, value.cumulative(), value.total)
        else:
            family.add_metric(key, value)
    described: Metric = family
    return described


class MetricsPage:
    """What ``/metrics`` answers; with ``siblings`` the numbers of several processes, added up."""

    def __init__(self, metrics: Metrics, state: State, siblings: Siblings | None = None) -> None:
        self._metrics = metrics
        self._state = state
        self._siblings = siblings
        self._others = (PlatformCollector(registry=None), ProcessCollector(registry=None))

    async def answer(self, accept: str = "") -> tuple[bytes, str]:
        """As :meth:`render`, with the page written in a thread: at some hundred models that takes as long as
        many requests, which go on meanwhile. All numbers are those of one moment."""
        return await asyncio.to_thread(self._write, _GatewayCollector(self._metrics, self._state), accept)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics 1.0.0 if ``accept`` (the header) prefers or only
        names it, else the Prometheus text format 0.0.4. Never fails on a malformed header."""
        return self._write(_GatewayCollector(self._metrics, self._state), accept)

    async def tell(self) -> None:
        """Tell the siblings, if there are any, what was counted here."""
        if self._siblings is not None:
            now = _GatewayCollector(self._metrics, self._state)
            await asyncio.to_thread(self._siblings.write, (now, *self._others))

    def _write(self, collector: Collector, accept: str) -> tuple[bytes, str]:
        registry = CollectorRegistry()
        own: tuple[Collector, ...] = (collector, *self._others)
        for each in own if self._siblings is None else (self._siblings.total(own),):
            registry.register(each)
        if _prefers_openmetrics(accept):
            measured: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return measured, openmetrics.CONTENT_TYPE_LATEST
        # The library would give a counter the name that ends in _total.
        page = _UNTYPED_COUNTER.sub(rb"# TYPE \1 counter", generate_latest(registry))
        return page, CONTENT_TYPE_PLAIN_0_0_4


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
