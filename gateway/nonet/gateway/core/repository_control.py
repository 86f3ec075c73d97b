"""The model repository as the faces and the process use it: one change at a time, in a thread of its own.

Loading and unloading block for seconds. In the event loop's common pool they would take the threads that
decode requests, and two loads of one model would race for the same memory.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from nonet.runtime.errors import PermissionDenied
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.repository.ownership import may_change, owner_of

T = TypeVar("T")


class RepositoryControl:
    """Runs the repository's blocking calls one after another, in the order they came.

    Args:
        repository: the model repository, whose calls block.
        root: its folder, which says whose each model is; None where models belong to nobody.
    """

    def __init__(self, repository: RepositoryManager, root: Path | None = None) -> None:
        self._repository = repository
        self._root = root
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="repository")

    async def load(self, name: str, config_override: str | None = None, *, tenant: str = "") -> None:
        """Load a model for a tenant; raises what the repository raises, and PermissionDenied
        (``MODEL_NOT_YOURS``) for the model of another."""
        await self.run(
            self._owned(name, tenant, functools.partial(self._repository.load, name, config_override))
        )

    async def unload(self, name: str, *, tenant: str = "") -> None:
        """Unload a model once the requests that use it are done; raises as :meth:`load`."""
        await self.run(self._owned(name, tenant, functools.partial(self._repository.unload, name)))

    async def run(self, work: Callable[[], T]) -> T:
        """Any other blocking call on the repository, in its turn. What has begun ends even if the caller
        leaves; what has not is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _owned(self, name: str, tenant: str, work: Callable[[], T]) -> Callable[[], T]:
        """``work``, if the model is the tenant's to change by the time of its turn."""

        def checked() -> T:
            if self._root is not None and not may_change(owner_of(self._root, name), tenant):
                raise PermissionDenied(
                    f"model '{name}' belongs to another tenant", param="model", code="MODEL_NOT_YOURS"
                )
            return work()

        return checked

    def close(self) -> None:
        """Take no further work and drop what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
