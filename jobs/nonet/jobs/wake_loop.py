"""A loop that looks for something to do: when it is woken, when it has rested, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nonet.runtime.errors import ServingError

logger = logging.getLogger(__name__)


class WakeLoop:
    """Start it, :meth:`finish` or :meth:`cancel` it.

    Args:
        work: what it does, for the log.
        look: awaited each time; gives the seconds to rest, None to wait until woken. What it raises ends
            neither the loop nor the process; the store has said in the log why it raises a ServingError.
        trouble: seconds to rest when it has raised.

    Attributes:
        finishing: whether :meth:`finish` was called.
        tasks: what :meth:`spawn` has started and has not ended.
    """

    def __init__(
        self, work: str, look: Callable[[], Awaitable[float | None]], trouble: float | None = None
    ) -> None:
        self.finishing = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._work = work
        self._look = look
        self._trouble = trouble
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, rest: float | None = 0.0) -> None:
        """Look for the first time after ``rest`` seconds, or when woken."""
        self._task = asyncio.create_task(self._run(rest), name=self._work)

    def wake(self) -> None:
        """Look now, or once more if it is looking."""
        self._woken.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the loop; the loop is woken when it ends, and logs its failure."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    async def wait(self, seconds: float) -> None:
        """Wait for what was spawned, so long at most."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=max(seconds, 0.1))

    async def finish(self) -> None:
        """Stop, when what is under way is done."""
        self.finishing = True
        self.wake()
        if self._task is not None:
            await self._task

    async def cancel(self) -> None:
        """Stop at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", self._work, exc_info=error)

    async def _run(self, rest: float | None) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._woken.wait()
            if self.finishing:
                return
            self._woken.clear()
            try:
                rest = await self._look()
            except ServingError:
                rest = self._trouble
            except Exception:
                rest = self._trouble
                logger.exception("%s failed", self._work)
