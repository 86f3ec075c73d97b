"""Keeps ``Retry-After`` true: who was refused and comes back when it was told to finds a place.

Told at random to come back, the refused meet the same queue again. So each of them is given a second of its
own choosing by the server, the first that has places left; a share of what can be served in a second is given
away like this, the rest is for newcomers. Places cost nothing while nobody takes them: as long as some are
due, newcomers may use all of the time before their deadlines but a part of it, and that part of the queue is
what is left for those who come back. They are known by the id of their request, which a refusal has told them
(``X-Request-Id``); who comes back under no id or another is a newcomer.
"""

from __future__ import annotations

import math

SHARE = 0.5
"""Of what can be served in a second that is promised to those who come back."""

LEFT = 0.25
"""Of the time before its deadline that a newcomer leaves to them while places are due."""

_HORIZON = 60
"""Seconds ahead; who would have to wait for longer is promised nothing."""

_PATIENCE = 2
"""Seconds after the promised one in which a place is still kept."""


class KeptPlaces:
    """See the module's text. Of one model."""

    def __init__(self) -> None:
        self._seconds: dict[str, int] = {}
        self._given: dict[int, int] = {}
        self._open = 0  # the first second that may have a place left

    def promise(self, caller: str, after: float, rate: float, now: float) -> float:
        """Seconds, a whole number of at least ``after``, after which ``caller`` has a place; ``after``,
        rounded up, if there is none within a minute.

        Args:
            caller: id of the refused request.
            after: seconds until the work ahead of it will have gone.
            rate: requests that are served in a second.
            now: the instant of the refusal.
        """
        current = math.floor(now)
        self._forget(current)
        earliest = math.ceil(after)
        second = max(current + max(earliest, 1), self._open)
        most = max(SHARE * rate, 1.0)
        while self._given.get(second, 0) >= most:
            second += 1
        if second - current > _HORIZON:
            return float(max(earliest, 1))
        self._open = max(self._open, second)
        self._given[second] = self._given.get(second, 0) + 1
        self._seconds[caller] = second
        return float(second - current)

    def holds(self, caller: str, now: float) -> bool:
        """Whether a place is kept for ``caller`` now."""
        second = self._seconds.get(caller)
        return second is not None and second <= now < second + 1 + _PATIENCE

    def take(self, caller: str) -> None:
        """``caller`` has come and was let in: its place is used up."""
        second = self._seconds.pop(caller, None)
        if second is not None:
            self._given[second] -= 1

    def due(self, now: float) -> bool:
        """Whether anybody may come now for a place."""
        current = math.floor(now)
        return any(self._given.get(current - late, 0) > 0 for late in range(_PATIENCE + 1))

    def _forget(self, current: int) -> None:
        """What was promised for seconds that are over."""
        over = [second for second in self._given if second + _PATIENCE < current]
        if over:
            for second in over:
                del self._given[second]
            self._seconds = {
                caller: second for caller, second in self._seconds.items() if second in self._given
            }
