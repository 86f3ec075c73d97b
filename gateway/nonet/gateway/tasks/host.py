"""What a gateway lends to the handlers of its services: the models that are ready, and the repository they
lie in."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nonet.gateway.core.repository_control import RepositoryControl
from nonet.jobs import Job, Jobs
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import Conflict, NotImplementedHere, PermissionDenied
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.ownership import may_change, owner_of
from nonet.runtime.repository.publish import remove_model
from nonet.runtime.servable import ModelInfo
from nonet.runtime.storage_errors import storage_errors
from nonet.runtime.task import Work

_LOOK_AGAIN = 0.5


@dataclasses.dataclass(eq=False)
class GatewayHost:
    """Implements :class:`~nonet.runtime.host.Host`.

    Args:
        catalog: what is ready.
        repository: folder of the models.
        manager: brings the catalog up to date; None where every service runs elsewhere.
        control: the thread that the manager's calls run in.
        may_remove: whether callers may remove models.
        works: the work that publishes, by its kind.
        jobs: tells which of it waits or runs; None where there are no jobs.
    """

    catalog: Catalog
    repository: Path
    manager: RepositoryManager | None
    control: RepositoryControl | None
    _: dataclasses.KW_ONLY
    may_remove: bool
    works: Mapping[str, Work]
    jobs: Jobs | None

    def __post_init__(self) -> None:
        self._looked = float("-inf")

    def models(self, task: str) -> Sequence[ModelInfo]:
        return self.catalog.services(task)

    def model(self, name: str) -> ModelInfo | None:
        return self.catalog.newest(name)

    def versions(self, name: str) -> Sequence[str]:
        return self.catalog.versions(name)

    async def refresh(self) -> None:
        if time.monotonic() >= self._looked + _LOOK_AGAIN:
            await self.load()

    async def load(self) -> None:
        """Bring the catalog up to date with the repository at once."""
        if self.manager is not None and self.control is not None:
            self._looked = time.monotonic()
            await self.control.run(self.manager.refresh)

    def keeps(self, model: str) -> bool:
        """Whether the repository of this process, if it has one, holds a model."""
        return self.manager is None or self.catalog.newest(model) is not None

    async def check_yours(self, work: Work, subject: str, tenant: str) -> Job | None:
        """The job on a subject that has not ended, if there is one.

        Raises PermissionDenied for the model of another tenant: who published it, or will first.
        """
        assert work.publishes is not None
        model = work.publishes(subject)
        # Asked first: if it ends now, what it left is seen.
        first = None if self.jobs is None else await self.jobs.active(work.kind, subject)
        owner = await asyncio.to_thread(owner_of, self.repository, model)
        if owner is None and first is not None:
            owner = first.tenant
        if not may_change(owner, tenant):
            raise work.not_yours(subject)
        return first

    async def remove(self, kind: str, subject: str, tenant: str) -> None:
        work = self.works[kind]
        if not self.may_remove:
            raise PermissionDenied("models cannot be changed here: repository.control is off")
        if self.manager is None or self.control is None:
            raise NotImplementedHere("the models are kept by another process; delete them there")
        if await self.check_yours(work, subject, tenant) is not None:
            raise Conflict(
                f"a job for '{subject}' waits or runs; cancel it first, or wait for it", code="MODEL_BUSY"
            )
        assert work.publishes is not None
        model = work.publishes(subject)
        if await asyncio.to_thread(read_model, self.repository, model) is None:
            raise LookupError(model)
        with storage_errors():
            await self.control.run(functools.partial(self._remove, model))

    def _remove(self, model: str) -> None:
        assert self.manager is not None
        remove_model(self.repository, model)
        self.manager.refresh()
