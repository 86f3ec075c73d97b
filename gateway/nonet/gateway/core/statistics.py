"""Running totals per model version, with the meaning of Triton's statistics extension."""

from __future__ import annotations

import time

from nonet.gateway.core.records import (
    ANSWERED_BY_CACHE,
    BatchRecord,
    DurationTotal,
    ModelStatistics,
    Observer,
    RequestRecord,
)


class StatisticsKeeper(Observer):
    """Answers the statistics calls. A step is an execution like others; how many wait is no part of them."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelStatistics] = {}

    def on_request(self, record: RequestRecord) -> None:
        if not record.model:
            return
        totals = self._of(record.model, record.version)
        if not record.ok:
            totals.fail.add(record.total)
            return
        totals.success.add(record.total)
        totals.last_inference_ms = time.time_ns() // 1_000_000
        # As the protocol's extension has it: what the cache answered counts as answered and as queued, and
        # neither as an inference nor in the times of computing.
        totals.queue.add(record.queue)
        if record.cache in ANSWERED_BY_CACHE:
            totals.cache_hit.add(record.total)
            return
        if record.cache == "miss":
            totals.cache_miss.add(record.total)
        totals.inference_count += record.rows
        totals.compute_input.add(record.decode)
        totals.compute_infer.add(record.compute)
        totals.compute_output.add(record.encode)

    def on_batch(self, record: BatchRecord) -> None:
        if record.failed:
            return
        totals = self._of(record.model, record.version)
        totals.execution_count += 1
        durations = totals.batches.setdefault(
            record.rows, (DurationTotal(), DurationTotal(), DurationTotal())
        )
        durations[0].add(0.0)
        durations[1].add(record.seconds)
        durations[2].add(0.0)

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        """A version that has left takes its totals along."""
        if not present:
            self._models.pop((model, version), None)

    def of(self, name: str, version: str) -> ModelStatistics:
        """The totals of a version; zeros if nothing has happened yet."""
        return self._models.get((name, version)) or ModelStatistics(name, version)

    def _of(self, name: str, version: str) -> ModelStatistics:
        found = self._models.get((name, version))
        if found is None:
            found = self._models[(name, version)] = ModelStatistics(name, version)
        return found
