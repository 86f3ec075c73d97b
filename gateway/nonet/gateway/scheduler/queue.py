"""One queue per model version, ordered by urgency; it owns the state of what waits in it.

Order: priority (0 first), then deadline, then arrival. An item is in exactly one state: waiting in its
queue, running in a batch, or done; every way out of the queue goes through :meth:`ModelQueue.remove`.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
from collections.abc import Hashable, Iterator
from typing import Any

QueueKey = tuple[str, str]
"""Model name and version."""


class ItemState(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """One request as the scheduler sees it.

    Args:
        key: the queue it belongs to.
        rows: batch rows it carries, >= 1.
        group: items batch together only if their groups are equal (same shapes, parameters, digest).
        deadline: instant after which nobody wants its answer, ``math.inf`` for none.
        priority: 0 is the highest.
        arrival: instant it was submitted.
        max_rows: largest batch its model takes (1: it is run alone).
        payload: whatever the owner needs back; the scheduler never looks at it.
    """

    key: QueueKey
    rows: int
    group: Hashable
    deadline: float
    priority: int
    arrival: float
    max_rows: int
    payload: Any = None
    state: ItemState = ItemState.WAITING
    started: float = 0.0
    sequence: int = -1
    due: float = dataclasses.field(init=False)
    """Earliest deadline among the callers that share this item; decides the order."""

    def __post_init__(self) -> None:
        self.due = self.deadline

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sort key: smaller is more urgent."""
        return (self.priority, self.due, self.sequence)


class ModelQueue:
    """The waiting items of one model version, most urgent first."""

    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.rows = 0
        self._items: list[Item] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def head(self) -> Item | None:
        return self._items[0] if self._items else None

    def add(self, item: Item) -> None:
        bisect.insort(self._items, item, key=_rank)
        self.rows += item.rows

    def remove(self, item: Item) -> bool:
        """Take ``item`` out; False if it is not here."""
        place = bisect.bisect_left(self._items, item.rank, key=_rank)
        if place < len(self._items) and self._items[place] is item:
            del self._items[place]
            self.rows -= item.rows
            return True
        return False

    def rows_ahead(self, rank: tuple[int, float, int]) -> int:
        """Rows of the items more urgent than ``rank``; estimated from the mean size of the items."""
        if not self._items:
            return 0
        ahead = bisect.bisect_left(self._items, rank, key=_rank)
        return round(self.rows * ahead / len(self._items))


def _rank(item: Item) -> tuple[int, float, int]:
    return item.rank
