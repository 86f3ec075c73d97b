"""Looks whether the folder of the jobs can be written, so that readiness says it before an upload is lost."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from nonet.gateway.core.data_plane import DataPlane
from nonet.jobs import JobFiles
from nonet.jobs.wake_loop import WakeLoop

logger = logging.getLogger(__name__)

_SECONDS = 2.0
"""Between two looks."""


class StorageWatch:
    """Tells the plane: :meth:`look` once at the start, and then start its ``loop``.

    Args:
        files: the files of the jobs.
        folder: their folder, for the log.
        plane: whose readiness it decides.
    """

    def __init__(self, files: JobFiles, folder: Path, plane: DataPlane) -> None:
        self._files = files
        self._folder = folder
        self._plane = plane
        self._trouble = ""
        self.loop = WakeLoop("looking at the folder of the jobs", self.look, _SECONDS)

    async def look(self) -> float:
        """Whether it can be written now; the log says so when that changes. Seconds to the next look."""
        trouble = await asyncio.to_thread(self._files.unwritable)
        if trouble and trouble != self._trouble:
            logger.error(
                "the folder of the jobs, %s, cannot be written (%s): not ready until it can be; jobs.path "
                "(NONET_JOBS__PATH) names another",
                self._folder,
                trouble,
            )
        elif self._trouble and not trouble:
            logger.info("the folder of the jobs can be written again")
        self._trouble = trouble
        self._plane.trouble = "the folder of its jobs cannot be written" if trouble else ""
        return _SECONDS
