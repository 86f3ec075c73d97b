"""The limits of long work, as one frozen value."""

from __future__ import annotations

import dataclasses
import math

__all__ = ["JobPolicy"]

_MAY_BE_0 = ("concurrency", "nice")


@dataclasses.dataclass(frozen=True, slots=True)
class JobPolicy:
    """Limits of jobs. Times in seconds, sizes in bytes.

    Args:
        concurrency: jobs that run at the same time on one machine, each in a process of its own; 0 for none.
        max_waiting: jobs that may wait in all; one more is refused with 503.
        max_waiting_per_tenant: jobs of one tenant that may wait; one more is refused with 429.
        max_attempts: deaths of one job's processes; with the last one the job fails.
        max_seconds: running time of one job, over all its attempts.
        max_memory_bytes: resident memory of one job's process.
        lease_seconds: a worker that was not heard of for so long has lost its job.
        stop_seconds: time a worker has to end after it was asked to; then it is killed.
        keep_seconds, keep_jobs: ended jobs older than this, and the oldest beyond this number, are forgotten.
        keep_result_seconds, keep_result_bytes: files that jobs have made are removed when they are older than
            this, and the oldest when all together take more than this.
        threads: CPU threads of one worker.
        nice: how much a worker steps back for those who serve, 0 to 19.

    Raises ValueError for a number that is not positive (``concurrency`` and ``nice`` may be 0).
    """

    concurrency: int = 1
    max_waiting: int = 100
    max_waiting_per_tenant: int = 20
    max_attempts: int = 3
    max_seconds: float = 3600.0
    max_memory_bytes: int = 4 << 30
    lease_seconds: float = 15.0
    stop_seconds: float = 10.0
    keep_seconds: float = 7 * 86400.0
    keep_jobs: int = 1000
    keep_result_seconds: float = 86400.0
    keep_result_bytes: int = 8 << 30
    threads: int = 1
    nice: int = 10

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in _MAY_BE_0):
                raise ValueError(f"{field.name} must be positive, got {value!r}")
