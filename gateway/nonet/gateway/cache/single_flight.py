"""Equal requests in flight share one execution.

The execution is a task of its own that belongs to nobody: the request that started it is a waiter like those
that join later. A waiter that leaves (cancelled, or past its deadline) takes nothing from the others; when
the last has left, the execution is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    __slots__ = ("hurry", "task", "waiters")

    def __init__(self, task: asyncio.Task[Result], hurry: Callable[[int, float], None]) -> None:
        self.task = task
        self.hurry = hurry
        self.waiters = 0


class SingleFlight(Generic[Result]):
    """Executions in flight by key; see the module's text. Lives on one event loop."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[Result]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(
        self,
        key: bytes,
        execute: Callable[[], Coroutine[Any, Any, Result]],
        *,
        priority: int,
        deadline: float,
        hurry: Callable[[int, float], None],
    ) -> tuple[Result, bool]:
        """The result of the flight of ``key``, started with ``execute`` if there is none.

        Returns the result and whether this caller joined a flight that another had started. ``hurry`` (of
        the starter) is called with the priority and deadline of those who join, who may be more urgent.
        Raises what the execution raised.
        """
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            task = asyncio.get_running_loop().create_task(execute())
            flight = self._flights[key] = _Flight(task, hurry)
            task.add_done_callback(lambda _: self._landed(key, task))
        else:
            flight.hurry(priority, deadline)
        flight.waiters += 1
        try:
            await asyncio.wait({flight.task})
            return flight.task.result(), joined
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                # Nobody wants it any more; a newcomer must not join a flight that is being called off.
                self._forget(key, flight.task)
                flight.task.cancel()

    def _landed(self, key: bytes, task: asyncio.Task[Result]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # marks it as seen: its waiters may all have left

    def _forget(self, key: bytes, task: asyncio.Task[Result]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
