"""Requests that were let in by their headers and are not queued yet: their bodies are on the way.

Many headers can arrive before the first of their bodies has been read. What is let in on an empty queue must
count for those that ask next, or all of them are let in and refused later, when their bodies have been paid
for.
"""

from __future__ import annotations

from collections import deque

from nonet.gateway.scheduler.queue import NOBODY, Caller, QueueKey

_IMMINENT = 0.1
"""Seconds after its headers in which a request is expected. One whose body takes longer than that, or that
never sends it, keeps nobody else out."""


class Seat:
    """What one request takes up between its headers and its queue."""

    __slots__ = ("_expected", "caller", "key", "priority", "taken", "until")

    def __init__(
        self, expected: Expected, key: QueueKey, priority: int, until: float, caller: Caller
    ) -> None:
        self._expected = expected
        self.caller = caller
        self.key = key
        self.priority = priority
        self.until = until
        self.taken = True

    def leave(self) -> None:
        """It is queued, or has its answer; further calls do nothing."""
        if self.taken:
            self.taken = False
            self._expected.left(self)


class Expected:
    """See the module's text. Belongs to one event loop, as the scheduler does."""

    def __init__(self) -> None:
        self._seats: deque[Seat] = deque()
        self._counts: dict[tuple[QueueKey, int], int] = {}

    def seat(self, key: QueueKey, priority: int, now: float, caller: Caller = NOBODY) -> Seat:
        """A request of ``caller`` has been let in at ``now``."""
        seat = Seat(self, key, priority, now + _IMMINENT, caller)
        self._seats.append(seat)
        self._counts[key, priority] = self._counts.get((key, priority), 0) + 1
        return seat

    def counts(self, priority: int, now: float) -> dict[QueueKey, int]:
        """Requests to expect of each version that are at least as urgent as ``priority``."""
        while self._seats and (not self._seats[0].taken or self._seats[0].until <= now):
            self._seats.popleft().leave()
        found: dict[QueueKey, int] = {}
        for (key, each), count in self._counts.items():
            if each <= priority:
                found[key] = found.get(key, 0) + count
        return found

    def left(self, seat: Seat) -> None:
        """Called by a seat."""
        place = (seat.key, seat.priority)
        self._counts[place] -= 1
        if not self._counts[place]:
            del self._counts[place]
