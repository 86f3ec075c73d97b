"""Announces in the store what this process's workers can do, and which model repository it serves from.

An announcement counts for a minute and is repeated; the store thus has a registry of the workers of all
processes that share it. A job that publishes requires the repository of the gateway it came through.
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

from nonet.jobs.capabilities import Capabilities
from nonet.jobs.requirements import REPOSITORY, SERVES, Demand
from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import InsufficientStorage, ServingError
from nonet.runtime.repository.publish import check_writable
from nonet.runtime.repository_identity import name_repository, repository_identity

__all__ = ["WorkerRegistry"]

logger = logging.getLogger(__name__)

_ANNOUNCE_SECONDS = 10.0
_TROUBLE_SECONDS = 2.0
_VALID_SECONDS = 60.0
"""Seconds after which those who are not heard of any more count as gone."""


class WorkerRegistry:
    """Start it, :meth:`stop` it.

    Args:
        store: keeps the announcements.
        blocking: runs calls on the store.
        capabilities: what the workers of this process can do, None if it has none.
        repository: the model repository that the workers publish in.
        serves: whether this process serves from it.
        eager: whether others must know before there is work. A gateway that shares its jobs with nobody asks
            its workers, and writes to its disk, when something waits.
        check: raises ServingError while no job can be worked on here.
        changed: called when jobs can be taken that could not before.

    Attributes:
        available: what jobs may require that are taken now; see :mod:`.requirements`.
    """

    def __init__(
        self,
        store: JobStore,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        capabilities: Capabilities | None,
        repository: Path,
        *,
        serves: bool,
        eager: bool,
        check: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self.available: Collection[str] = frozenset()
        self._store = store
        self._blocking = blocking
        self._capabilities = capabilities
        self._repository = repository
        self._serves = serves
        self._eager = eager
        self._check = check
        self._changed = changed
        self._due = asyncio.Event()
        self._announced: set[str] = set()
        self._announced_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Announce from now on."""
        self._task = asyncio.create_task(self._run(), name="worker-registry")

    def announce_soon(self) -> None:
        """Something waits or runs: announce now what was not announced lately."""
        if time.monotonic() > self._announced_at + _ANNOUNCE_SECONDS:
            self._due.set()

    def announce_now(self) -> None:
        """A job was submitted here, for which the repository may have got its name."""
        self._due.set()

    async def stop(self) -> None:
        """Announce no more; nothing is taken any more either."""
        self.available = frozenset()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def foreign(self, kinds: Collection[str]) -> str:
        """Why work of ``kinds``, which publish, must not be done here: gateways were heard of, and none of
        them serves from this repository. "" if there is no such reason, or none of it can be done here
        anyway. To be asked once, at the start. Raises ServingError."""
        demand: Demand = await self._blocking(self._store.demand)
        announced = frozenset[str]().union(*demand.workers)
        served = {word.removeprefix(SERVES) for word in announced if word.startswith(SERVES)}
        own = await asyncio.to_thread(repository_identity, self._repository)
        if not served or own in served or self._capabilities is None:
            return ""
        if not await self._capabilities.available() & set(kinds):
            return ""
        here = f"is repository {own}" if own else "has no name"
        return (
            f"the model repository {self._repository.absolute()} {here}, the gateways serve from repository "
            f"{', '.join(sorted(served))}: what is published here would be served by nobody; repository.path "
            "must be the folder of the gateways"
        )

    async def publishing(self) -> tuple[str, ...]:
        """What a job requires that publishes where this process serves: the repository, which gets a name if
        it has none. Nothing if it cannot have one."""
        name = await asyncio.to_thread(name_repository, self._repository) if self._serves else ""
        return (REPOSITORY + name,) if name else ()

    async def check_publishing(self, model: str = "") -> None:
        """Raises InsufficientStorage if the workers of this process cannot publish a version of ``model``,
        and nobody else was heard of who can publish in the repository."""
        try:
            await asyncio.to_thread(check_writable, self._repository, model)
        except InsufficientStorage:
            if not self._eager:  # nobody else works on these jobs
                raise
            name = await asyncio.to_thread(repository_identity, self._repository)
            if not name or not await self._blocking(lambda: self._store.is_available(REPOSITORY + name)):
                raise

    async def _run(self) -> None:
        rest = 0.0 if self._eager else None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._due.wait()
            self._due.clear()
            rest = _ANNOUNCE_SECONDS if self._eager else None
            try:
                await self._announce()
            except ServingError:
                self.available, rest = frozenset(), _TROUBLE_SECONDS  # the log says why
            except Exception:
                logger.exception("announcing what the workers can do failed")

    async def _announce(self) -> None:
        await self._check()
        able = frozenset[str]() if self._capabilities is None else await self._capabilities.available()
        own, writable = await asyncio.to_thread(self._identify)
        available = able | {REPOSITORY + own} if able and own and writable else able
        announced = {*available, SERVES + own} if own and self._serves else {*available}
        now = time.monotonic()
        if announced != self._announced or now >= self._announced_at + _ANNOUNCE_SECONDS:
            if announced:
                await self._blocking(lambda: self._store.announce(announced, _VALID_SECONDS))
            self._announced, self._announced_at = announced, now
        if available != self.available:
            logger.info("jobs that can be worked on here: %s", ", ".join(sorted(available)) or "none")
            self.available = available
            self._changed()

    def _identify(self) -> tuple[str, bool]:
        """The name of the repository, and whether it can be written.

        Gateways give it a name for others; workers do not: theirs may not be the gateways' folder, which is
        what the name is to show."""
        make = self._serves and self._eager
        name = name_repository(self._repository) if make else repository_identity(self._repository)
        return name, os.access(self._repository, os.W_OK)
