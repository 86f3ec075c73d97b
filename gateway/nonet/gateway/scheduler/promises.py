"""What the scheduler promises at its door: how late answers come, who has a place, whose part is used up."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nonet.gateway.scheduler.fair_shares import FairShares
from nonet.gateway.scheduler.kept_places import LEFT, KeptPlaces
from nonet.gateway.scheduler.punctuality import Punctuality
from nonet.gateway.scheduler.queue import Caller, Item, QueueKey


class Promises:
    """The three by model version. Of one scheduler; belongs to its event loop.

    Attributes:
        shares: of the tenants, over all models.
    """

    def __init__(self) -> None:
        self.shares = FairShares()
        self._punctuality: dict[QueueKey, Punctuality] = {}
        self._kept: dict[QueueKey, KeptPlaces] = {}

    def seconds(self, key: QueueKey, predicted: float, now: float) -> float:
        """What to promise for ``predicted`` seconds."""
        known = self._punctuality.get(key)
        return predicted if known is None else predicted * known.ratio(predicted, now)

    def ended(self, item: Item, now: float, *, answered: bool) -> None:
        """A first execution has brought the answer, or the item was given up before it."""
        if item.predicted:
            taken = now - item.arrival if answered else math.inf
            self._punctuality.setdefault(item.key, Punctuality()).observe(item.predicted, taken, now)
            item.predicted = 0.0

    def room(self, caller: Caller, waiting: Mapping[str, int], now: float) -> float:
        """The part of queue and time that a further item of ``caller`` leaves to other tenants."""
        self.shares.asks(caller.tenant, now)
        return self.shares.room(caller.tenant, waiting, now)

    def kept(self, key: QueueKey, caller: Caller, now: float) -> float:
        """The part of the time before its deadline that a newcomer leaves to those who come back."""
        places = self._kept.get(key)
        if places is None or places.holds(caller.request_id, now) or not places.due(now):
            return 0.0
        return places.left

    def keep(
        self, key: QueueKey, caller: Caller, late: float, alone: float, left: float, rate: float, now: float
    ) -> float:
        """Seconds after which a refused request would be in time; a place is kept for it if it can be in time
        at all and known again.

        Args:
            key, caller: of the request.
            late: seconds after its deadline that it would be answered now.
            alone: seconds that it takes on idle devices.
            left: seconds to its deadline.
            rate: such requests that are served in a second.
            now: the instant of the refusal.
        """
        if not caller.request_id or not alone or alone > left * (1.0 - LEFT):
            return max(late, 0.05)
        return self._kept.setdefault(key, KeptPlaces()).promise(caller.request_id, late, rate, now)

    def redeem(self, item: Item) -> None:
        """An item has been queued."""
        if (places := self._kept.get(item.key)) is not None:
            places.take(item.caller.request_id)

    def forget(self, key: QueueKey) -> None:
        """A version has left."""
        self._punctuality.pop(key, None)
        self._kept.pop(key, None)
