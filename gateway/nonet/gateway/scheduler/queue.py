"""One queue per model version, ordered by urgency; it owns the state of what waits in it.

Order: priority (0 first), then deadline, then arrival; an item that has taken a step goes behind all that
wait at that moment (see :meth:`Item.again`). An item is in exactly one state: waiting in its queue, running
in a batch, or done; every way out of the queue goes through :meth:`ModelQueue.remove`.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
import math
import operator
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

QueueKey = tuple[str, str]
"""Model name and version."""


_rank = operator.attrgetter("rank")
_priority = operator.attrgetter("priority")


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Whose a request is: its tenant, "" where there are no keys, and the id under which it comes back if it
    was refused, "" for none."""

    tenant: str = ""
    request_id: str = ""


NOBODY = Caller()


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
        arrival: instant it came into the queue, the last time if it works in steps.
        max_rows: largest batch its model takes (1: it is run alone).
        cost: work of its next execution in rows of the sample request; 0.0 stands for ``rows``.
        left: executions that it is expected to need from now on, >= 1; only predictions look at it.
        predicted: seconds from its arrival to its answer, as predicted when it was queued; 0.0: nothing was.
        caller: whose it is.
        payload: whatever the owner needs back; the scheduler never looks at it.
    """

    key: QueueKey
    rows: int
    group: Hashable
    deadline: float
    priority: int
    arrival: float
    max_rows: int
    cost: float = 0.0
    left: float = 1.0
    predicted: float = 0.0
    caller: Caller = NOBODY
    payload: Any = None
    state: ItemState = ItemState.WAITING
    started: float = 0.0
    sequence: int = -1
    steps: int = 0
    """Steps that it has taken."""
    due: float = dataclasses.field(init=False)
    """Earliest deadline among the callers that share this item, or its turn if it has taken a step; decides
    the order."""

    def __post_init__(self) -> None:
        self.due = self.deadline
        self.cost = self.cost or float(self.rows)

    def again(self, turn: float, sequence: int, now: float) -> None:
        """It has taken a step and waits for the next, not before ``turn``, the latest ``due`` of what waits
        with its priority."""
        self.steps += 1
        self.left = max(self.left - 1.0, 1.0)
        self.due = max(self.deadline, turn)
        self.sequence = sequence
        self.arrival = now

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sort key: smaller is more urgent."""
        return (self.priority, self.due, self.sequence)


class ModelQueue:
    """The waiting items of one model version, most urgent first."""

    def __init__(self, key: QueueKey) -> None:
        self.key = key
        self.rows = 0
        self.cost = 0.0
        self.tenants: Counter[str] = Counter()  # rows of each
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
        self.tenants[item.caller.tenant] += item.rows
        self.cost += item.cost

    def remove(self, item: Item) -> bool:
        """Take ``item`` out; False if it is not here."""
        place = bisect.bisect_left(self._items, item.rank, key=_rank)
        if place < len(self._items) and self._items[place] is item:
            del self._items[place]
            self.rows -= item.rows
            self.tenants[item.caller.tenant] -= item.rows
            self.cost = self.cost - item.cost if self._items else 0.0
            return True
        return False

    def rows_ahead(self, rank: tuple[int, float, float]) -> int:
        """Rows of the items more urgent than ``rank``; estimated from the mean size of the items."""
        if not self._items:
            return 0
        ahead = bisect.bisect_left(self._items, rank, key=_rank)
        return round(self.rows * ahead / len(self._items))

    def latest_due(self, priority: int) -> float:
        """``due`` of the last item of one priority; minus infinity if there is none."""
        place = bisect.bisect_right(self._items, priority, key=_priority)
        last = self._items[place - 1] if place else None
        return last.due if last is not None and last.priority == priority else -math.inf
