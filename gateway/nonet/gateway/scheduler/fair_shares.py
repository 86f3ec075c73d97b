"""Shares the queue and the devices among tenants, so that the flood of one does not starve the others.

Algorithm: start-time fair queuing (Goyal, Vin and Cheng, 1996) under deadlines. Each tenant has a tag, the
instant at which its work would be done if all that have asked lately had equal parts of the devices; an item
is due at its deadline or its tenant's tag, whichever is later, so what one asks beyond its part goes behind
what the others ask, and none of the devices idles for it. And a tenant that has more than its part of the
queue leaves some room in it, of places and of the time before the deadlines, for those who come next.

Without keys all callers are one tenant without a name, and nothing of this applies.
"""

from __future__ import annotations

from collections.abc import Mapping

ROOM = 0.25
"""Of the queue, and of the time before a deadline, that a tenant beyond its part leaves to the others."""

_LATELY = 1.0
"""Seconds for which a tenant counts after it has asked."""


class FairShares:
    """See the module's text. Of one scheduler; belongs to its event loop."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._tags: dict[str, float] = {}

    def asks(self, tenant: str, now: float) -> None:
        """A tenant asks for something."""
        if tenant:
            self._asked[tenant] = now

    def due(self, tenant: str, deadline: float, seconds: float, now: float) -> float:
        """The instant by which an item of ``tenant`` would be ordered whose next execution takes
        ``seconds``."""
        if not tenant:
            return deadline
        tenants = self._lately(now)
        if tenants < 2:
            self._tags.clear()
            return deadline
        return max(deadline, max(self._tags.get(tenant, now), now) + tenants * seconds)

    def queued(self, tenant: str, seconds: float, now: float) -> None:
        """Such an item has been queued."""
        if tenant and (tenants := self._lately(now)) > 1:
            self._tags[tenant] = max(self._tags.get(tenant, now), now) + tenants * seconds

    def room(self, tenant: str, waiting: Mapping[str, int], now: float) -> float:
        """The part of queue and time that a further item of ``tenant`` must leave free: 0.0, or :data:`ROOM`
        if those of it that wait are more than its part.

        Args:
            waiting: rows by tenant.
        """
        if not tenant:
            return 0.0
        own = waiting.get(tenant, 0)
        return ROOM if own * (self._lately(now) + 1) > sum(waiting.values()) else 0.0

    def _lately(self, now: float) -> int:
        """How many tenants have asked lately."""
        gone = [tenant for tenant, at in self._asked.items() if at + _LATELY < now]
        for tenant in gone:
            del self._asked[tenant]
            self._tags.pop(tenant, None)
        return len(self._asked)
