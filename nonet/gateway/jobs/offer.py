"""What this process does for all that share the store: it says so there, again and again.

the folder is the one that all share, the workers can do this and that -> offer it -> a while later again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from nonet.gateway.jobs.contract import JobStore
from nonet.gateway.jobs.skills import Skills
from nonet.runtime.errors import ServingError

__all__ = ["Offer"]

logger = logging.getLogger(__name__)

_SAY_SECONDS = 10.0
_TROUBLE_SECONDS = 2.0
_VALID_SECONDS = 60.0
"""Seconds after which those who are not heard of any more count as gone."""


class Offer:
    """Start it, :meth:`stop` it.

    Args:
        store: where it is said.
        blocking: runs calls on the store.
        skills: what the workers can do.
        check: raises ServingError while no job can be worked on here.
        found: called when jobs can be taken that could not before.

    Attributes:
        kinds: the work that may be taken now.
    """

    def __init__(
        self,
        store: JobStore,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        skills: Skills,
        *,
        check: Callable[[], Awaitable[None]],
        found: Callable[[], None],
    ) -> None:
        self.kinds: Collection[str] = ()
        self._store = store
        self._blocking = blocking
        self._skills = skills
        self._check = check
        self._found = found
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say it from now on."""
        self._task = asyncio.create_task(self._run(), name="job-offer")

    async def stop(self) -> None:
        """Say it no more; nothing is taken any more either."""
        self.kinds = ()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._say()
                rest = _SAY_SECONDS
            except ServingError:
                self.kinds, rest = (), _TROUBLE_SECONDS  # the log says why
            except Exception:
                logger.exception("offering work failed")
                rest = _SAY_SECONDS
            await asyncio.sleep(rest)

    async def _say(self) -> None:
        await self._check()
        kinds = await self._skills.kinds()
        await self._blocking(lambda: self._store.offer(kinds, _VALID_SECONDS))
        if set(kinds) != set(self.kinds):
            logger.info("jobs that can be worked on here: %s", ", ".join(sorted(kinds)) or "none")
            self.kinds = kinds
            self._found()
