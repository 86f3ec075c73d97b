"""Counters and histograms of requests and batches: an observer of the core, read by the exporter.

Plain integers and bucket lists per model; a request costs a few dictionary look-ups and no lock, since every
count happens on the event loop; a scrape reads a copy that was made there. How the numbers become Prometheus
families is written in :mod:`nonet.gateway.metrics.exposition`.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence

from nonet.gateway.core.records import ANSWERED_BY_CACHE, BatchRecord, Observer, RequestRecord

LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds. From one small network on one core to a diffusion job; about 2.3x apart."""

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

OTHER = "other"
"""The one label for everything beyond the cap, and for names that are no model's."""

SHED_CODES = frozenset(
    {
        "DEADLINE_UNATTAINABLE", "DRAINING", "MODEL_NOT_READY", "NO_DEVICE", "OVERLOADED", "QUEUE_FULL",
        "SHUTTING_DOWN", "STARTING", "UNAVAILABLE",
    }
)  # fmt: skip
"""Codes that mean: refused to protect the others, before any work was done."""

CANCELLED_CODES = frozenset({"CLIENT_CLOSED", "CANCELLED"})


class Histogram:
    """Counts per bucket, with sum; ``bounds`` are the upper edges without infinity."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        copied = Histogram(self.bounds)
        copied.counts, copied.total = self.counts.copy(), self.total
        return copied

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """``(upper edge, values at or below it)``, ending in ``+Inf``: what an exposition wants."""
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets


_latency = functools.partial(Histogram, LATENCY_BUCKETS)
_batch = functools.partial(Histogram, BATCH_BUCKETS)


@dataclasses.dataclass(slots=True)
class ModelCounters:
    """Totals of one (model, version); times in seconds. Times are summed over answered requests only, as
    Triton does, and compute times only over those that were executed (not answered from the cache)."""

    success: int = 0
    failure: int = 0
    rows: int = 0
    executions: int = 0
    duration: float = 0.0
    queue: float = 0.0
    compute_input: float = 0.0
    compute_infer: float = 0.0
    compute_output: float = 0.0
    pending: int = 0
    steps: int = 0
    stepping: int = 0
    cache: defaultdict[str, int] = dataclasses.field(default_factory=lambda: defaultdict(int))
    failures: defaultdict[str, int] = dataclasses.field(default_factory=lambda: defaultdict(int))
    shed: defaultdict[str, int] = dataclasses.field(default_factory=lambda: defaultdict(int))
    deadlines_met: int = 0
    deadlines_missed: int = 0
    devices: defaultdict[str, int] = dataclasses.field(default_factory=lambda: defaultdict(int))
    batch_failures: int = 0
    hung: int = 0
    joules: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    cost: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    judged: int = 0
    unsure: int = 0
    latency: Histogram = dataclasses.field(default_factory=_latency)
    queue_time: Histogram = dataclasses.field(default_factory=_latency)
    batch_size: Histogram = dataclasses.field(default_factory=_batch)

    def copy(self) -> ModelCounters:
        """The totals of this moment."""
        own = {name: getattr(self, name).copy() for name in _OBJECTS}
        return dataclasses.replace(self, **own)


_OBJECTS = ("cache", "failures", "shed", "devices", "joules", "cost", "latency", "queue_time", "batch_size")
"""Attributes of :class:`ModelCounters` that are no plain numbers."""


class Metrics(Observer):
    """An observer that adds up.

    Attributes:
        metered: devices whose energy is measured, and told with :meth:`add_energy`.

    Args:
        max_models: (model, version) pairs and (route, model) pairs that get labels of their own; further
            ones share ``other``, so that nothing a caller or a busy repository does can grow the exposition
            without bound.
    """

    def __init__(self, max_models: int = 500) -> None:
        self._max_models = max_models
        self.models: dict[tuple[str, str], ModelCounters] = {}
        self.routes: dict[tuple[str, str], Histogram] = {}
        self.statuses: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.metered: set[str] = set()
        self.cancelled: dict[str, int] = {"admission": 0, "queued": 0, "executing": 0}

    def copy(self) -> Metrics:
        """All totals of this moment: what another thread can read while this one goes on counting."""
        copied = Metrics(self._max_models)
        copied.models = {key: counters.copy() for key, counters in self.models.items()}
        copied.routes = {key: histogram.copy() for key, histogram in self.routes.items()}
        copied.statuses, copied.cancelled = self.statuses.copy(), self.cancelled.copy()
        return copied

    def on_request(self, record: RequestRecord) -> None:
        counters = self._counters(record.model, record.version)
        if record.ok:
            counters.success += 1
            counters.duration += record.total
            counters.queue += record.queue
            counters.cache[record.cache] += 1
            if record.batch_size > 0 and record.cache not in ANSWERED_BY_CACHE:
                counters.rows += record.rows
                counters.compute_input += record.decode
                counters.compute_infer += record.compute
                counters.compute_output += record.encode
                counters.queue_time.add(record.queue)
                counters.devices[record.device] += 1
            counters.latency.add(record.total)
            if record.unsure is not None:
                counters.judged += record.rows
                counters.unsure += record.unsure
        else:
            self._failed(counters, record)
        if record.deadline_met is not None:
            if record.deadline_met:
                counters.deadlines_met += 1
            else:
                counters.deadlines_missed += 1

    def _failed(self, counters: ModelCounters, record: RequestRecord) -> None:
        code = record.code or "INTERNAL"
        counters.failure += 1
        counters.failures[code] += 1
        if code in CANCELLED_CODES:
            self.cancelled[record.stage] = self.cancelled.get(record.stage, 0) + 1
        elif code in SHED_CODES:
            counters.shed[code] += 1

    def on_batch(self, record: BatchRecord) -> None:
        counters = self._counters(record.model, record.version)
        if record.cost:
            counters.cost[record.device] += record.cost
        if record.joules and record.device not in self.metered:
            counters.joules[record.device] += record.joules
        if record.failed:
            counters.batch_failures += 1
            counters.hung += record.hung
            return
        counters.executions += 1
        counters.batch_size.add(record.rows)

    def add_energy(self, model: str, version: str, device: str, joules: float) -> None:
        """So much energy was measured for the executions of a version."""
        self._counters(model, version).joules[device] += joules

    def on_queue_depth(self, model: str, version: str, requests: int) -> None:
        self._counters(model, version).pending = requests

    def on_steps(self, model: str, version: str, *, taken: int, requests: int) -> None:
        counters = self._counters(model, version)
        counters.steps += taken
        counters.stepping = requests

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        """A version came (its series start at zero, so that rates see its first request) or left (its series
        end, which makes room for others)."""
        if present:
            self._counters(model, version)
        else:
            self.models.pop((model, version), None)

    def observe_route(self, route: str, status: int | str, seconds: float, model: str = "") -> None:
        """One answered call of a face.

        Args:
            route: the route's template (``/v2/models/{model}/infer``,
                ``/inference.GRPCInferenceService/ModelInfer``), never the caller's path.
            status: HTTP status, or the name of the gRPC status.
            seconds: from the end of the request's headers to the end of the answer.
            model: the name the catalog resolved, "" if the call has none or it does not exist.
        """
        key = (route, model)
        histogram = self.routes.get(key)
        if histogram is None:
            if len(self.routes) >= self._max_models:
                key = (route, OTHER)
            histogram = self.routes.setdefault(key, _latency())
        histogram.add(seconds)
        self.statuses[(route, str(status))] += 1

    def _counters(self, model: str, version: str) -> ModelCounters:
        key = (model, version)
        counters = self.models.get(key)
        if counters is None:
            if not model or len(self.models) >= self._max_models:
                key = (OTHER, "")
            counters = self.models.setdefault(key, ModelCounters())
        return counters
