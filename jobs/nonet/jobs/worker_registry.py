"""Announces in the store what this process's workers can do, and which model repository it serves from.

An announcement counts for a minute and is repeated; the store thus has a registry of the workers of all
processes that share it. A job that publishes requires the repository of the gateway it came through.

A machine on which the folder of the jobs is not mounted, or no longer, would take jobs whose files it cannot
see, and queue jobs that nobody can work on. So the store knows the name that lies in the folder that all
machines share; who finds another keeps away.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Collection

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.capabilities import Capabilities
from nonet.jobs.files import JobFiles
from nonet.jobs.requirements import REPOSITORY, SERVES
from nonet.jobs.supervisor import WorkerCommand
from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.errors import InsufficientStorage, NotImplementedHere, ServingError, Unavailable
from nonet.runtime.repository.publish import check_writable
from nonet.runtime.repository_identity import name_repository, repository_identity

logger = logging.getLogger(__name__)

_ANNOUNCE_SECONDS = 10.0
_TROUBLE_SECONDS = 2.0
_VALID_SECONDS = 60.0
"""Seconds after which those who are not heard of any more count as gone."""


@dataclasses.dataclass(eq=False)
class WorkerRegistry:
    """Start it, wake its ``loop`` when the repository may have got its name; :meth:`stop` it.

    Args:
        store: keeps the announcements.
        files: the folder of the jobs.
        command: how the workers of this process are started, and what they publish in.
        works: whether this process has workers.
        serves: whether this process serves from the repository.
        eager: whether others must know before there is work. A gateway that shares its jobs with nobody asks
            its workers, and writes to its disk, when something waits.
        shared: whether the folder is to be the one that all machines share.
        changed: called when jobs can be taken that could not before.

    Attributes:
        available: what jobs may require that are taken now; see :mod:`.requirements`.
    """

    store: AsyncStore
    files: JobFiles
    command: WorkerCommand
    _: dataclasses.KW_ONLY
    works: bool
    serves: bool
    eager: bool
    shared: bool
    changed: Callable[[], None]

    def __post_init__(self) -> None:
        self.available: Collection[str] = frozenset()
        self._repository = self.command.repository
        self._capabilities = Capabilities(self.command.words) if self.works else None
        self._announced: set[str] = set()
        self._announced_at = float("-inf")
        self._strange_folder = False
        self.loop = WakeLoop("announcing what the workers can do", self._look, _TROUBLE_SECONDS)

    def start(self) -> None:
        """Announce from now on."""
        self.loop.start(0.0 if self.eager else None)

    def announce_soon(self) -> None:
        """Something waits or runs: announce now what was not announced lately."""
        if time.monotonic() > self._announced_at + _ANNOUNCE_SECONDS:
            self.loop.wake()

    async def stop(self) -> None:
        """Announce no more; nothing is taken any more either."""
        self.available = frozenset()
        await self.loop.cancel()

    async def able(self, kind: str) -> None:
        """Raises NotImplementedHere, saying what to install, if only this process has workers and they cannot
        do this kind of work; Unavailable if nobody who can was heard of, or that cannot be found out now."""
        await self._check_folder()
        refusal: ServingError = Unavailable(
            "nobody who can do this work was heard of in the last minute; retry later",
            code="NO_WORKER",
            retry_after=10.0,
        )
        if self._capabilities is not None:
            try:
                missing = await self._capabilities.missing(kind)
            except Unavailable as error:
                refusal = error
            else:
                if not missing:
                    return
                refusal = NotImplementedHere(missing, code="EXTRA_MISSING")
        if not await self.store.call(lambda store: store.is_available(kind)):
            raise refusal

    async def foreign(self, kinds: Collection[str]) -> str:
        """Why work of ``kinds``, which publish, must not be done here: gateways were heard of, and none of
        them serves from this repository. "" if there is no such reason, none of it can be done here anyway,
        or the store cannot be asked. To be asked once, at the start."""
        with contextlib.suppress(ServingError):
            demand = await self.store.call(lambda store: store.demand())
            announced = frozenset[str]().union(*demand.workers)
            served = {word.removeprefix(SERVES) for word in announced if word.startswith(SERVES)}
            own = await asyncio.to_thread(repository_identity, self._repository)
            if not served or own in served or self._capabilities is None:
                return ""
            if not await self._capabilities.available() & set(kinds):
                return ""
            here = f"is repository {own}" if own else "has no name"
            return (
                f"the model repository {self._repository.absolute()} {here}, the gateways serve from "
                f"repository {', '.join(sorted(served))}: what is published here would be served by nobody; "
                "repository.path must be the folder of the gateways"
            )
        return ""

    async def publishing(self) -> tuple[str, ...]:
        """What a job requires that publishes where this process serves: the repository, which gets a name if
        it has none. Nothing if it cannot have one."""
        name = await asyncio.to_thread(name_repository, self._repository) if self.serves else ""
        return (REPOSITORY + name,) if name else ()

    async def check_publishing(self, model: str = "") -> None:
        """Raises InsufficientStorage (``REPOSITORY_READ_ONLY``) if the workers of this process cannot publish
        a version of ``model``, and nobody else was heard of who can publish in the repository."""
        if self._capabilities is None:
            return
        try:
            await asyncio.to_thread(check_writable, self._repository, model)
        except InsufficientStorage:
            if not self.eager:  # nobody else works on these jobs
                raise
            name = await asyncio.to_thread(repository_identity, self._repository)
            if not name or not await self.store.call(lambda store: store.is_available(REPOSITORY + name)):
                raise

    async def _look(self) -> float | None:
        try:
            await self._announce()
        except ServingError:
            self.available = frozenset()
            raise
        return _ANNOUNCE_SECONDS if self.eager else None

    async def _announce(self) -> None:
        await self._check_folder()
        able = frozenset[str]() if self._capabilities is None else await self._capabilities.available()
        own, writable = await asyncio.to_thread(self._identify)
        available = able | {REPOSITORY + own} if able and own and writable else able
        announced = {*available, SERVES + own} if own and self.serves else {*available}
        now = time.monotonic()
        if announced != self._announced or now >= self._announced_at + _ANNOUNCE_SECONDS:
            if announced:
                await self.store.call(lambda store: store.announce(announced, _VALID_SECONDS))
            self._announced, self._announced_at = announced, now
        if available != self.available:
            logger.info("jobs that can be worked on here: %s", ", ".join(sorted(available)) or "none")
            self.available = available
            self.changed()

    def _identify(self) -> tuple[str, bool]:
        """The name of the repository, and whether it can be written.

        Gateways give it a name for others; workers do not: theirs may not be the gateways' folder, which is
        what the name is to show."""
        make = self.serves and self.eager
        name = name_repository(self._repository) if make else repository_identity(self._repository)
        return name, os.access(self._repository, os.W_OK)

    async def _check_folder(self) -> None:
        """Raises Unavailable if the folder of the jobs is another one, and what the disk and the store
        raise."""
        if not self.shared:
            return
        name = await asyncio.to_thread(self.files.identity)
        strange = not await self.store.call(lambda store: store.agree_on_folder(name))
        said, self._strange_folder = self._strange_folder, strange
        if strange and not said:
            logger.error(
                "%s is not the folder that the jobs of this store lie in: jobs.path must be one folder that "
                "all machines share (its file folder-id tells it from others)",
                self.files.root.absolute(),
            )
        if strange:
            raise Unavailable(
                "the folder of the jobs is not there now", code="JOBS_UNAVAILABLE", retry_after=10.0
            )
