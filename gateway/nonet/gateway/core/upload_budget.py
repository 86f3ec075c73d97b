"""The accounts of bytes that callers have sent and that no answer has settled yet, over all faces together:
of those in memory, and of those that went to the disk.

A body is entered piece by piece, as it arrives or is decoded, in whatever thread that happens: what is over
the budget is refused before it is kept, not afterwards.
"""

from __future__ import annotations

import threading

from nonet.runtime.errors import ClientClosed, Unavailable

_LARGEST_AT_ONCE = 16
"""Uploads on their way to the disk may take as much of it together as so many of the largest."""


class UploadBudget:
    """Bytes in flight, and how many there may be. Thread-safe.

    Args:
        limit: bytes that all requests together may hold.

    Raises ValueError for a limit below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"the budget must be positive, got {limit}")
        self._limit = limit
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that are in flight now."""
        return self._held

    def open(self) -> Hold:
        """The account of one request, empty."""
        return Hold(self)

    def _enter(self, size: int, *, within: bool) -> bool:
        with self._lock:
            if within and self._held + size > self._limit:
                return False
            self._held += size
            return True


def disk_budget(largest: int) -> UploadBudget:
    """What all uploads that go to the disk may take of it, given the bytes that one may have."""
    return UploadBudget(_LARGEST_AT_ONCE * largest)


class Hold:
    """What one request holds; a context manager that gives all of it back at the end."""

    __slots__ = ("_budget", "_closed", "_held", "_lock")

    def __init__(self, budget: UploadBudget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._held = 0
        self._closed = False

    def take(self, size: int) -> None:
        """Enter ``size`` further bytes.

        Raises Unavailable (``UPLOADS_OVER_BUDGET``) if they do not fit, ClientClosed if the request is over:
        a thread that still works for it then stops.
        """
        with self._lock:
            if self._closed:
                raise ClientClosed("the request is over")
            if not self._budget._enter(size, within=True):
                raise Unavailable(
                    "too many bytes are being uploaded at the same time", code="UPLOADS_OVER_BUDGET"
                )
            self._held += size

    def give_back(self, size: int) -> None:
        """``size`` of the bytes taken are no longer kept."""
        with self._lock:
            size = min(size, self._held)
            self._held -= size
            self._budget._enter(-size, within=False)

    def close(self) -> None:
        """The request is over; nothing can be taken any more."""
        with self._lock:
            self._closed = True
            self._budget._enter(-self._held, within=False)
            self._held = 0

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
