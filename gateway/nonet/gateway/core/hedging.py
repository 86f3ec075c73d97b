"""Runs an execution that is late on a second device as well: the first answer counts (hedged requests).

A batch is late beyond the 99th percentile of what its model takes, actual over usual seconds, which is
followed execution by execution. If another device is free and would still be in time, what somebody waits for
of the batch is run there too. Whichever answers first resolves the requests; the other is cancelled where
that is possible, and dropped where not. After Dean and Barroso, The Tail at Scale (2013).

Guarantees: at most :data:`SHARE` of all executions are hedges (a token bucket that begins empty); only what
is one execution with equal answers to equal requests is run twice, and nothing more than once more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from nonet.gateway.core.ticket import Ticket
from nonet.gateway.scheduler import Batch, DeviceState, QueueKey, Scheduler
from nonet.runtime.clock import Clock

SHARE = 0.02
"""Of the executions, those that may be hedges."""

_LEAST = 0.005  # seconds of delay; a shorter one is not worth a second execution
_MOST_TOKENS = 5.0
_LATE_SHARE = 0.01
_STEP = 0.05
_FIRST_RATIO = 2.0
_BOUNDS = (1.2, 20.0)


class Tail:
    """The 99th percentile of actual over usual seconds, by stochastic approximation (Robbins and Monro)."""

    def __init__(self) -> None:
        self.ratio = _FIRST_RATIO

    def observe(self, ratio: float) -> None:
        """An execution took ``ratio`` times its usual seconds, or was cancelled after so many."""
        above = ratio > self.ratio
        self.ratio *= 1.0 + _STEP if above else 1.0 - _STEP * _LATE_SHARE / (1.0 - _LATE_SHARE)
        self.ratio = min(max(self.ratio, _BOUNDS[0]), _BOUNDS[1])


class Hedging:
    """See the module's text. Of one dispatcher; belongs to its event loop.

    Attributes:
        outcomes: hedges by what came of them: ``won`` (the second execution answered first), ``lost`` or
            ``failed`` (neither answered).

    Args:
        scheduler: whose devices they are.
        clock: of the deadlines.
        launch: starts a batch that is already on its device.
        enabled: whether anything is hedged.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Clock, launch: Callable[[Batch], None], enabled: bool
    ) -> None:
        self.outcomes: Counter[str] = Counter(won=0, lost=0, failed=0)
        self._scheduler = scheduler
        self._clock = clock
        self._launch = launch
        self._enabled = enabled and len(scheduler.devices) > 1
        self._tokens = 0.0
        self._tails: dict[QueueKey, Tail] = {}
        self._timers: dict[Batch, asyncio.TimerHandle] = {}
        self._hedges: dict[Batch, Batch] = {}  # either of a pair -> the other, while that one runs

    def launched(self, batch: Batch, ticket: Ticket) -> None:
        """A batch, ``ticket`` its first, runs now; it is looked at again when it is late."""
        info = ticket.lease.info
        if not self._enabled or batch in self._hedges:
            return
        self._tokens = min(self._tokens + SHARE, _MOST_TOKENS)
        single = not info.decoupled and all(item.left <= 1.0 and not item.steps for item in batch.items)
        if single and info.cacheable and batch.usual > 0.0:
            tail = self._tails.setdefault(batch.key, Tail())
            late = max(batch.usual * tail.ratio, batch.usual + _LEAST)
            self._timers[batch] = asyncio.get_running_loop().call_later(late, self._late, batch)

    def ended(self, batch: Batch, seconds: float | None, *, answered: bool) -> None:
        """A batch has ended. ``seconds``: that it took, at least, None if it failed."""
        if (timer := self._timers.pop(batch, None)) is not None:
            timer.cancel()
        if seconds is not None and batch.usual > 0.0 and self._enabled:
            self._tails.setdefault(batch.key, Tail()).observe(seconds / batch.usual)
        if (other := self._hedges.pop(batch, None)) is None:
            return
        if answered:
            self.outcomes["won" if batch.started > other.started else "lost"] += 1
            self._hedges.pop(other, None)
        elif other not in self._hedges:
            self.outcomes["failed"] += 1

    def forget(self, key: QueueKey) -> None:
        """A version has left."""
        self._tails.pop(key, None)

    def _late(self, batch: Batch) -> None:
        self._timers.pop(batch, None)
        if self._tokens < 1.0:
            return
        now = self._clock.now()
        found = self._free_device(batch, now)
        if found is None:
            return
        device, end = found
        items = [
            item
            for item in batch.items
            if isinstance(item.payload, Ticket) and not item.payload.done.done() and item.deadline >= end
        ]
        if not items:
            return
        self._tokens -= 1.0
        hedge = device.begin(batch.key, items, now)
        self._hedges[batch], self._hedges[hedge] = hedge, batch
        self._launch(hedge)

    def _free_device(self, batch: Batch, now: float) -> tuple[DeviceState, float] | None:
        """Another device with a free lane that is the first to end, and when."""
        ends = [
            (now + device.model(batch.key).usual(batch.cost, now), index, device)
            for index, device in enumerate(self._scheduler.able(batch.key, now))
            if device.name != batch.device and device.free_lanes > 0
        ]
        if not ends:
            return None
        end, _, device = min(ends)
        return device, end
