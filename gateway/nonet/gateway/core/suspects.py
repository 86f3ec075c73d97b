"""Requests whose device went away under them: which are tried again, alone, and which are run no more.

A process that dies takes every request with it that it had in flight, and at most one of them was the reason.
So each is tried again once, elsewhere, alone in its batch and never two of them at the same time: those that
are innocent get their answers. A request is blamed if its device went away while it was on such a trial, or
had nothing else to do; one that is blamed twice, whoever sends it, is *quarantined* by its content for some
minutes and refused before it costs another process.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from nonet.runtime.errors import Unprocessable

__all__ = ["Quarantine", "Suspects"]

BLAMED: Final = 2
"""Processes after which a request is run no more."""
SECONDS: Final = 600.0
"""For which it is not, and for which a first blame is remembered."""
_MOST: Final = 1000

_Ticket = TypeVar("_Ticket", bound=Hashable)


class Quarantine:
    """Contents that took their processes down. The oldest is forgotten beyond a thousand."""

    def __init__(self) -> None:
        self._blamed: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    @property
    def empty(self) -> bool:
        """Whether nothing is blamed, so that no request need be looked up."""
        return not self._blamed

    def check(self, content: bytes, now: float) -> None:
        """Raises Unprocessable (``QUARANTINED``) for a content that was blamed often enough."""
        times, last = self._blamed.get(content, (0, 0.0))
        if times and now - last > SECONDS:
            del self._blamed[content]
        elif times >= BLAMED:
            raise Unprocessable(
                f"this request ended the process of its model {times} times; it is not run again for "
                f"{(SECONDS - (now - last)) / 60:.0f} minutes",
                code="QUARANTINED",
            )

    def blame(self, content: bytes, now: float) -> None:
        """A process went away while it ran this content."""
        times, last = self._blamed.pop(content, (0, now))
        self._blamed[content] = (times + 1 if now - last <= SECONDS else 1, now)
        while len(self._blamed) > _MOST:
            self._blamed.popitem(last=False)


class Suspects(Generic[_Ticket]):
    """The trials; see the module's text.

    Args:
        begin: queues a request for its trial.
        given_up: whether nobody waits for a request any more; what it takes up is given back then.
    """

    def __init__(self, begin: Callable[[_Ticket], None], given_up: Callable[[_Ticket], bool]) -> None:
        self._begin = begin
        self._given_up = given_up
        self._waiting: deque[_Ticket] = deque()
        self._on_trial: _Ticket | None = None

    def add(self, ticket: _Ticket) -> None:
        """A request is to be tried when those before it are done."""
        self._waiting.append(ticket)
        self._next()

    def is_on_trial(self, ticket: _Ticket) -> bool:
        """Whether this is the one that is tried now."""
        return self._on_trial is ticket

    def ended(self, ticket: _Ticket) -> None:
        """A request will not run again; if it was on trial, the next one is."""
        if self._on_trial is ticket:
            self._on_trial = None
            self._next()

    def take(self, wanted: Callable[[_Ticket], bool]) -> list[_Ticket]:
        """Remove and return those that wait for their trial and are ``wanted``."""
        taken = [ticket for ticket in self._waiting if wanted(ticket)]
        self._waiting = deque(ticket for ticket in self._waiting if ticket not in taken)
        return taken

    def _next(self) -> None:
        while self._on_trial is None and self._waiting:
            ticket = self._waiting.popleft()
            if not self._given_up(ticket):
                self._on_trial = ticket
                self._begin(ticket)
