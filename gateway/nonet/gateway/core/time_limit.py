"""A deadline over a block of a coroutine, for the price of one timer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class TimeLimit:
    """Cancels the current task after ``seconds`` and turns that cancellation into TimeoutError.

    What ``asyncio.timeout`` does, as a plain context manager without its states: it is on the path of every
    request. A cancellation that came from elsewhere passes unchanged, also if the time ran out meanwhile.
    ``passed`` says whether it was this limit that ended the block.
    """

    __slots__ = ("_pending", "_seconds", "_task", "_timer", "passed")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.passed = False

    def __enter__(self) -> TimeLimit:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._pending = task.cancelling()
        self._timer = loop.call_later(self._seconds, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self.passed and self._task.uncancel() <= self._pending and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _pass(self) -> None:
        self.passed = True
        self._task.cancel()
