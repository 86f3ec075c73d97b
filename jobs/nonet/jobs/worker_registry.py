"""What this process does for all that share the store: it says so there, again and again.

the folder is the one that all share, the workers can do this and that -> offer it -> a while later again

Beside what its workers can do it says which repository they publish in, and which one it serves from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from nonet.jobs.capabilities import Skills
from nonet.jobs.requirements import REPOSITORY, SERVES, Demand
from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import ServingError
from nonet.runtime.repository_identity import name_repository, repository_identity

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
        skills: what the workers can do, None if this process has none.
        repository: the model repository that the workers publish in.
        serves: whether this process serves from it.
        eager: whether others must know before there is work. A gateway that shares its jobs with nobody asks
            its workers, and writes to its disk, when something waits.
        check: raises ServingError while no job can be worked on here.
        found: called when jobs can be taken that could not before.

    Attributes:
        words: what jobs may need that are taken now; see :mod:`.needs`.
    """

    def __init__(
        self,
        store: JobStore,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        skills: Skills | None,
        repository: Path,
        *,
        serves: bool,
        eager: bool,
        check: Callable[[], Awaitable[None]],
        found: Callable[[], None],
    ) -> None:
        self.words: Collection[str] = frozenset()
        self._store = store
        self._blocking = blocking
        self._skills = skills
        self._repository = repository
        self._serves = serves
        self._eager = eager
        self._check = check
        self._found = found
        self._due = asyncio.Event()
        self._said = float("-inf")
        self._last: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Say it from now on."""
        self._task = asyncio.create_task(self._run(), name="job-offer")

    def needed(self) -> None:
        """Something waits or runs: what was not said lately is said now."""
        if time.monotonic() > self._said + _SAY_SECONDS:
            self._due.set()

    def changed(self) -> None:
        """A job was submitted here, for which the repository may have got its name: say it now."""
        self._due.set()

    async def stop(self) -> None:
        """Say it no more; nothing is taken any more either."""
        self.words = frozenset()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def foreign(self, kinds: Collection[str]) -> str:
        """Why work of ``kinds``, which publish, must not be done here: gateways were heard of, and none of
        them serves from this repository. "" if there is no such reason, or none of it can be done here
        anyway. To be asked once, at the start. Raises ServingError."""
        demand: Demand = await self._blocking(self._store.demand)
        served = {
            word.removeprefix(SERVES) for word in frozenset().union(*demand.offers) if word.startswith(SERVES)
        }
        own = await asyncio.to_thread(repository_identity, self._repository)
        if not served or own in served or self._skills is None or not await self._skills.words() & set(kinds):
            return ""
        here = f"is repository {own}" if own else "has no name"
        return (
            f"the model repository {self._repository.absolute()} {here}, the gateways serve from repository "
            f"{', '.join(sorted(served))}: what is published here would be served by nobody; repository.path "
            "must be the folder of the gateways"
        )

    async def name_home(self) -> str:
        """The name of the repository that this process serves from, which gets one if it has none; "" if it
        serves from none."""
        return await asyncio.to_thread(name_repository, self._repository) if self._serves else ""

    async def _run(self) -> None:
        rest = 0.0 if self._eager else None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._due.wait()
            self._due.clear()
            rest = _SAY_SECONDS if self._eager else None
            try:
                await self._say()
            except ServingError:
                self.words, rest = frozenset(), _TROUBLE_SECONDS  # the log says why
            except Exception:
                logger.exception("offering work failed")

    async def _say(self) -> None:
        await self._check()
        able = frozenset[str]() if self._skills is None else await self._skills.words()
        own, writable = await asyncio.to_thread(self._home)
        takes = set(able)
        if able and own and writable:
            takes.add(REPOSITORY + own)
        said = takes | ({SERVES + own} if own and self._serves else set())
        now = time.monotonic()
        if said != self._last or now >= self._said + _SAY_SECONDS:
            if said:
                await self._blocking(lambda: self._store.offer(said, _VALID_SECONDS))
            self._last, self._said = said, now
        if takes != self.words:
            logger.info("jobs that can be worked on here: %s", ", ".join(sorted(takes)) or "none")
            self.words = frozenset(takes)
            self._found()

    def _home(self) -> tuple[str, bool]:
        """The name of the repository, and whether it can be written.

        Gateways give it a name for others; workers do not: theirs may not be the gateways' folder, which is
        what the name is to show."""
        make = self._serves and self._eager
        name = name_repository(self._repository) if make else repository_identity(self._repository)
        return name, os.access(self._repository, os.W_OK)
