"""Whether a request can be served at all, asked with its headers: before its body has been sent.

Who calls and within which quota is asked first, by the faces (:mod:`.gatekeeper`, :mod:`.call_headers`). What
is refused here would be refused later, too: what only the body tells is taken to be the most favourable.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Sequence

from nonet.gateway.core.routing import Router
from nonet.gateway.scheduler import NOBODY, Caller, QueueKey, Scheduler
from nonet.gateway.scheduler.expected import Seat
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import Clock
from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, ServingError, Unavailable
from nonet.runtime.servable import ModelInfo


class Admission:
    """See the module's text.

    Attributes:
        open: whether new requests are let in.
        begun: whether they ever were.
        refused: a model that the last request, if it was refused, may have been for; None if none is known.
        held_bytes: of the inputs of all requests between arrival and answer.

    Args:
        catalog, router: say which models a request may be for.
        scheduler: says what waits for them and how long it takes.
        clock: the clock of deadlines.
        max_bytes: that may be held.
    """

    def __init__(
        self, catalog: Catalog, router: Router, scheduler: Scheduler, clock: Clock, max_bytes: int
    ) -> None:
        self.open = self.begun = False
        self.held_bytes = 0
        self.refused: ModelInfo | None = None
        self._catalog = catalog
        self._router = router
        self._scheduler = scheduler
        self._clock = clock
        self._max_bytes = max_bytes

    def check_open(self) -> None:
        """Raises Unavailable (``STARTING``, ``DRAINING``) if nothing new is let in."""
        if not self.open and not self.begun:
            raise Unavailable("the server is loading its models; retry later", code="STARTING")
        if not self.open:
            raise Unavailable("the server is draining; try another one", code="DRAINING")

    def check_memory(self, further: int = 0) -> None:
        """Raises Unavailable (``OVERLOADED``) if ``further`` bytes would be more than may be held."""
        if self.held_bytes + further > self._max_bytes:
            raise Unavailable("the server holds as much input as it may; retry later", code="OVERLOADED")

    def check(
        self,
        task: str,
        model: str,
        version: str,
        deadline: float | None,
        priority: int,
        caller: Caller = NOBODY,
    ) -> QueueKey | None:
        """Whether a request can be let in, by what its headers and path tell, and the version that it is then
        taken to be for, if they tell of one.

        Raises Unavailable: nothing is let in (``DRAINING``), too much input is held (``OVERLOADED``), or the
        queue of every model that it may be for is full (``QUEUE_FULL``); DeadlineExceeded or
        DeadlineUnattainable if none of them can answer the least request in time. If there is no such model
        it is let in: the one who looks for it says so.
        """
        self.check_open()
        candidates = self.candidates(task, model, version)
        self.refused = candidates[0] if candidates else None
        self.check_memory(1)
        now = self._clock.now()
        refusal: ServingError | None = None
        for info in candidates:
            try:
                key = (info.name, info.version)
                due = math.inf if deadline is None else deadline
                self._scheduler.check(key, priority, due, now, caller=caller)
                return key
            except (DeadlineExceeded, DeadlineUnattainable) as error:
                refusal = refusal or error
            except Unavailable as error:
                if error.code != "QUEUE_FULL":
                    return None
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return None

    def candidates(self, task: str, model: str, version: str) -> Sequence[ModelInfo]:
        """The models that a request may be for; none if it tells too little, or of what is not there."""
        if task:
            # The body may still name any of them.
            return self._router.members(task, model) if model else self._router.services(task)
        if not model:
            return ()
        try:
            return (self._catalog.info(model, version),)
        except ServingError:
            return ()


_seat: contextvars.ContextVar[Seat | None] = contextvars.ContextVar("nonet_seat", default=None)


def queued() -> str:
    """The request that is being handled goes into its queue and is expected no longer; the id under which it
    comes back, "" if none is known."""
    seat = _seat.get()
    if seat is None:
        return ""
    seat.leave()
    return seat.caller.request_id


class Place:
    """A request that was let in by its headers, for as long as the ``with`` block on it runs.

    Args:
        in_flight: counts it.
        seat: what it takes up until it is queued; None if its headers do not tell where.
    """

    def __init__(self, in_flight: InFlight, seat: Seat | None) -> None:
        self._in_flight = in_flight
        self._seat = seat

    def __enter__(self) -> None:
        _seat.set(self._seat)
        self._in_flight.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._seat is not None:
            self._seat.leave()
        self._in_flight.__exit__()


class InFlight:
    """Counts requests: one for as long as each ``with`` block on it runs. Belongs to one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.count += 1
        if self.count == 1:
            self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._none.set()

    async def end(self, seconds: float) -> bool:
        """Wait until no request is left, at most ``seconds``; whether none is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._none.wait()
        return self.count == 0
