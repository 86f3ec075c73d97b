"""The open connections of one HTTP server, and which one is closed when there are too many."""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """A connection that can be told to make room."""

    def evict(self) -> None: ...


class ConnectionPool:
    """Counts connections and knows which of them wait for a request.

    When the pool is full, a newcomer takes the place of the connection that has waited the longest: ten
    thousand idle keep-alives never keep a new client out, and a busy connection is never closed. All
    operations take constant time.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self._open: set[Member] = set()
        self._idle: dict[Member, None] = {}  # in the order in which they became idle

    def __len__(self) -> int:
        return len(self._open)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def enter(self, member: Member) -> bool:
        """Let a new connection in, as idle; False if the pool is full of busy ones."""
        if len(self._open) >= self.capacity:
            if not self._idle:
                return False
            oldest = next(iter(self._idle))
            self.leave(oldest)
            oldest.evict()
        self._open.add(member)
        self._idle[member] = None
        return True

    def busy(self, member: Member) -> None:
        """The connection has begun to send a request."""
        self._idle.pop(member, None)

    def rest(self, member: Member) -> None:
        """The connection waits for its next request."""
        if member in self._open:
            self._idle[member] = None

    def leave(self, member: Member) -> None:
        """The connection is closed; calling it again does nothing."""
        self._open.discard(member)
        self._idle.pop(member, None)
