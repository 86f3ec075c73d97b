"""Plain facts about what happened; exporters live elsewhere and subscribe.

The core calls an :class:`Observer` on its event loop; an observer must return quickly and never raise.
"""

from __future__ import annotations

import dataclasses

from nonet.runtime.requests import UNSURE_ROWS, InferResponse

ANSWERED_BY_CACHE = frozenset({"hit", "coalesced"})
"""Cache outcomes that mean: no execution of its own."""


@dataclasses.dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request that was resolved, exactly once.

    Args:
        model, version: of the OIP model; version is "" when it never resolved. ``model`` is "" when no such
            model exists (so that made-up names cannot become metric labels).
        rows: batch rows it carried (1 if the model does not batch).
        ok: whether an answer was given.
        code: error code of :class:`~nonet.runtime.errors.ServingError`, or "".
        stage: where it ended: ``admission``, ``cache``, ``queued``, ``executing`` or ``done``.
        cache: ``hit``, ``miss``, ``coalesced`` or ``bypass``.
        device: name of the device that ran it, or "".
        batch_size: rows of the batch it ran in (0 if it never ran).
        total, queue, decode, compute, encode: seconds.
        deadline_met: True or False if it had a deadline, else None.
        unsure: of an answered request, how many of its rows the model says it is unsure of; None if the model
            does not say.
        queued_at, begun_at, executed_at: instants at which it was queued, its execution began (of one of
            several steps: it was queued) and ended; 0.0 where that did not come to pass.
        span_id: of its execution, where it is traced.
    """

    model: str = ""
    version: str = ""
    rows: int = 1
    ok: bool = False
    code: str = ""
    stage: str = "admission"
    cache: str = "bypass"
    device: str = ""
    batch_size: int = 0
    total: float = 0.0
    queue: float = 0.0
    decode: float = 0.0
    compute: float = 0.0
    encode: float = 0.0
    deadline_met: bool | None = None
    unsure: int | None = None
    queued_at: float = 0.0
    begun_at: float = 0.0
    executed_at: float = 0.0
    span_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class BatchRecord:
    """One execution on a device: model, version, requests and rows in it, seconds, whether it failed, whether
    that was because it hung, and what it cost in energy and money as declared (0.0: not known)."""

    model: str
    version: str
    device: str
    requests: int
    rows: int
    seconds: float
    failed: bool
    hung: bool = False
    joules: float = 0.0
    cost: float = 0.0


def unsure_rows(response: InferResponse, rows: int) -> int | None:
    """How many of a request's rows its answer says to be unsure of, at most all; None if it does not say."""
    unsure = response.parameters.get(UNSURE_ROWS)
    return min(max(unsure, 0), rows) if isinstance(unsure, int) and not isinstance(unsure, bool) else None


class Observer:
    """Receives the facts, on the event loop; what it does not override it does not want to know."""

    def on_request(self, record: RequestRecord) -> None: ...

    def on_batch(self, record: BatchRecord) -> None: ...

    def on_queue_depth(self, model: str, version: str, requests: int) -> None:
        """The number of requests of a model that wait, after it changed."""

    def on_steps(self, model: str, version: str, *, taken: int, requests: int) -> None:
        """So many steps of requests that need several were taken, and so many requests of the model have
        taken one and are not at their end."""

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        """A version came, or has left for good: nothing more will be told of it."""


@dataclasses.dataclass(slots=True)
class DurationTotal:
    """A count and the nanoseconds they took together, as Triton's statistics report them."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.nanoseconds += round(seconds * 1e9)


@dataclasses.dataclass(slots=True)
class ModelStatistics:
    """Running totals of one model version, with the meaning of Triton's statistics extension.

    ``inference_count`` counts rows, ``execution_count`` batches; ``batches`` maps rows of a batch to its
    executions' (input, infer, output) totals. ``last_inference_ms`` is milliseconds since the epoch.
    """

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    fail: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    queue: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    compute_input: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    compute_infer: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    compute_output: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    cache_hit: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    cache_miss: DurationTotal = dataclasses.field(default_factory=DurationTotal)
    batches: dict[int, tuple[DurationTotal, DurationTotal, DurationTotal]] = dataclasses.field(
        default_factory=dict
    )
