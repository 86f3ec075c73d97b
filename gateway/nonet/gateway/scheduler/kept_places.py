"""Keeps ``Retry-After`` true: who was refused and comes back when it was told to finds a place.

Told at random to come back, the refused meet the same queue again. So each of them is told the first whole
number of seconds (``Retry-After`` knows no others) after which a place is left; a share of what can be
served is given away like this, tenth of a second by tenth of a second, the rest is for newcomers. Places
cost nothing while nobody takes them: as long as some are due, newcomers may use all of the time before
their deadlines but a part of it, and that part of the queue is what is left for those who come back. They
are known by the id of their request, which a refusal has told them (``X-Request-Id``); who comes back under
no id or another is a newcomer.

Most callers may never come back. So it is followed how many do, and the fewer they are, the more places are
promised for the same time, and the less of it newcomers must leave.
"""

from __future__ import annotations

import math

SHARE = 0.5
"""Of what can be served in a second that is promised to those who come back."""

LEFT = 0.25
"""Of the time before its deadline that a newcomer leaves to them while places are due."""

_HORIZON = 60
"""Seconds ahead; who would have to wait for longer is promised nothing."""

_PATIENCE = 2.0
"""Seconds for which a place is kept after the promised instant."""

_LEAST = 0.1
"""Of those who were promised a place that are taken to come back, however few did."""

_WEIGHT = 0.05  # of one promise in the share of those that were taken up

_SLOTS = 10
"""In a second; each has places of its own, or all would come at its beginning."""


class KeptPlaces:
    """See the module's text. Of one model."""

    def __init__(self) -> None:
        self._instants: dict[str, float] = {}
        self._given: dict[int, int] = {}
        self._came: set[str] = set()
        self._returning = 1.0
        self._swept = -math.inf

    @property
    def left(self) -> float:
        """Of the time before its deadline that a newcomer leaves while places are due."""
        return LEFT * self._returning

    def promise(self, caller: str, after: float, rate: float, now: float) -> float:
        """Seconds, a whole number of at least ``after``, after which ``caller`` has a place; ``after``,
        rounded up, if there is none within a minute.

        Args:
            caller: id of the refused request.
            after: seconds until the work ahead of it will have gone.
            rate: requests that are served in a second.
            now: the instant of the refusal.
        """
        self._sweep(now)
        earliest = max(math.ceil(after), 1)
        most = max(SHARE * rate / _SLOTS / self._returning, 1.0)
        for seconds in range(earliest, _HORIZON + 1):
            slot = _slot(now + seconds)
            given = self._given.get(slot, 0)
            if given < most:
                self._given[slot] = given + 1
                self._instants[caller] = now + seconds
                return float(seconds)
        return float(earliest)

    def holds(self, caller: str, now: float) -> bool:
        """Whether a place is kept for ``caller`` now."""
        instant = self._instants.get(caller)
        # A client's clock need not run as ours does.
        held = instant is not None and instant - 1.0 / _SLOTS <= now < instant + _PATIENCE
        if held and caller not in self._came:
            self._came.add(caller)
            self._learn(1.0)
        return held

    def take(self, caller: str) -> None:
        """``caller`` has come and was let in: its place is used up."""
        self._came.discard(caller)
        instant = self._instants.pop(caller, None)
        if instant is not None and (slot := _slot(instant)) in self._given:
            self._given[slot] -= 1

    def due(self, now: float) -> bool:
        """Whether anybody may come now for a place."""
        slot = _slot(now)
        return any(self._given.get(slot + each, 0) > 0 for each in (1, 0, -1, -2, -3))

    def _sweep(self, now: float) -> None:
        """Forget, once a second, what was promised for instants that are over."""
        if now < self._swept + 1.0:
            return
        self._swept = now
        over = now - _PATIENCE
        for caller in [caller for caller, instant in self._instants.items() if instant <= over]:
            del self._instants[caller]
            if caller not in self._came:
                self._learn(0.0)
            self._came.discard(caller)
        self._given = {slot: count for slot, count in self._given.items() if slot >= _slot(over)}

    def _learn(self, came: float) -> None:
        self._returning = max(self._returning + _WEIGHT * (came - self._returning), _LEAST)


def _slot(instant: float) -> int:
    return math.floor(instant * _SLOTS)
