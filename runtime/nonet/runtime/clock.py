"""The clock interface that queues, deadlines, circuit breakers and caches read, and its implementations.

Queues, deadlines, breakers and caches read a :class:`Clock` and never the wall clock, so a stepped system
clock changes nothing, tests run in simulated time and the fleet simulator runs the code that serves.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in seconds; only differences mean anything."""

    def now(self) -> float: ...


class MonotonicClock:
    """The process's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told; for tests and simulation."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds`` (>= 0). Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._now += seconds
