"""What becomes of requests whose device went away under them or whose execution hung: a second try, or none.

A request of which somebody still waits for the answer is tried once more, alone, if it may be innocent; what
was blamed often enough is run no more. How trials and blame work, :mod:`.suspects` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nonet.gateway.cache import cache_key
from nonet.gateway.core.suspects import Quarantine, Suspects
from nonet.gateway.core.ticket import Ticket, lost
from nonet.gateway.executor.contract import Hung, NotReached
from nonet.gateway.scheduler import Batch, QueueKey, Scheduler
from nonet.runtime.errors import ServingError
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo

_TOGETHER = 1.0  # seconds in which what a device had in flight is told to have gone with it


class SecondChances:
    """See the module's text. Of one dispatcher; belongs to its event loop.

    Args:
        scheduler: where requests are queued again.
        servable: whether any healthy device serves a version.
        end: resolves a ticket that will not run again; None leaves it as it is resolved.
        wake: called when something was queued.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        servable: Callable[[QueueKey], bool],
        end: Callable[[Ticket, ServingError | None], None],
        wake: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._servable = servable
        self._end = end
        self._wake = wake
        self._crashes: dict[str, float] = {}
        self._quarantine = Quarantine()
        self._suspects: Suspects[Ticket] = Suspects(self._begin_trial, self._given_up)

    def check(self, request: InferRequest, info: ModelInfo, now: float) -> None:
        """Raises Unprocessable (``QUARANTINED``) for what is run no more."""
        if not self._quarantine.empty:
            self._quarantine.check(cache_key(request, info), now)

    def crashed(self, batch: Batch, ticket: Ticket, error: ServingError, now: float) -> None:
        """The execution of a ticket ended with :class:`BackendCrashed`."""
        before = self._crashes.get(batch.device, -math.inf)
        self._crashes[batch.device] = now
        hung = isinstance(error, Hung)
        alone = len(batch.items) == 1
        # A process takes everything with it that it had in flight; a hung execution only its own batch.
        if not hung:
            running = self._scheduler.devices[batch.device].running
            alone = alone and not running and now - before > _TOGETHER
        reached = not isinstance(error, NotReached)
        if reached and (alone or self._suspects.is_on_trial(ticket)):
            content = cache_key(ticket.request, ticket.lease.info)
            self._quarantine.blame(content, now)
            try:
                self._quarantine.check(content, now)
            except ServingError as quarantined:
                self._end(ticket, quarantined)
                return
        guilty = hung and alone
        if guilty or ticket.retried or ticket.done.done() or not self._servable(ticket.item.key):
            self._end(ticket, error)
            return
        ticket.retried = True
        if not reached:
            self._scheduler.requeue(ticket.item)
            return
        ticket.item.group = ("after a crash", ticket.item.sequence)
        ticket.item.max_rows = ticket.item.rows
        self._suspects.add(ticket)

    def ended(self, ticket: Ticket) -> None:
        """A ticket will not run again."""
        self._suspects.ended(ticket)

    def refuse(self, error: Callable[[Ticket], ServingError | None]) -> None:
        """End those that wait for their trial and for which there is an error."""
        for ticket in self._suspects.take(lambda ticket: error(ticket) is not None):
            self._end(ticket, error(ticket))

    def _begin_trial(self, ticket: Ticket) -> None:
        if not self._servable(ticket.item.key):
            self._end(ticket, lost(ticket.item.key))
            return
        self._scheduler.requeue(ticket.item)
        self._wake()

    def _given_up(self, ticket: Ticket) -> bool:
        if gone := ticket.done.done():
            self._end(ticket, None)
        return gone
