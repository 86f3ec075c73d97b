"""Checks that the folder of the jobs is the one that all machines of a store share.

A machine whose volume is not mounted, or no longer, would take jobs whose files it cannot see, and queue jobs
that nobody can work on. So the store knows the name that lies in the folder; who finds another keeps away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nonet.jobs.files import JobFiles
from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import Unavailable

__all__ = ["SharedFolder"]

logger = logging.getLogger(__name__)


class SharedFolder:
    """Checks when asked.

    Args:
        store: knows the folder's name.
        files: the folder.
        blocking: runs calls on the store.
        path: of the folder, for the log.
        shared: whether there is anything to check.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        path: Path,
        *,
        shared: bool,
    ) -> None:
        self._store = store
        self._files = files
        self._blocking = blocking
        self._path = path
        self._shared = shared
        self._trouble = False

    async def check(self) -> None:
        """Raises Unavailable if the folder is another one, and what the disk and the store raise."""
        if not self._shared:
            return
        name = await asyncio.to_thread(self._files.identity)
        before = self._trouble
        self._trouble = not await self._blocking(lambda: self._store.agree_on_folder(name))
        if not self._trouble:
            return
        if not before:
            logger.error(
                "%s is not the folder that the jobs of this store lie in: jobs.path must be one folder that "
                "all machines share (its file folder-id tells it from others)",
                self._path.absolute(),
            )
        raise Unavailable(
            "the folder of the jobs is not there now", code="JOBS_UNAVAILABLE", retry_after=10.0
        )
