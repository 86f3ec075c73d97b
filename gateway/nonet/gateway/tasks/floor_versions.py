"""Old versions of buildings: a refit leaves the one before it, and too many of them are removed."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nonet.gateway.tasks.floor_buildings import NETWORK_PREFIX, SERVICE_PREFIX
from nonet.runtime.catalog import Catalog
from nonet.runtime.repository.publish import prune_versions

__all__ = ["FloorVersions"]

logger = logging.getLogger(__name__)


class FloorVersions:
    """Keeps the newest ``keep`` versions of each building in the repository.

    Looks at a building whenever a version of it was closed, which is when a newer one serves in its place and
    the last request that it had is done. What serves, what requests still hold, and what is newer than both
    stays; see :func:`~nonet.runtime.repository.publish.prune_versions`.

    Args:
        catalog: says what is in use.
        root: folder of the model repository.
        keep: versions that are kept, 1 or more.
    """

    def __init__(self, catalog: Catalog, root: Path, keep: int) -> None:
        self._catalog = catalog
        self._root = root
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="old-versions")
        catalog.on_close(self._closed)

    def _closed(self, name: str, version: str) -> None:
        """In any thread, also the event loop's: the disk has a thread of its own."""
        if name.startswith(SERVICE_PREFIX + NETWORK_PREFIX):
            with contextlib.suppress(RuntimeError):  # the process ends
                self._thread.submit(self._prune, name.removeprefix(SERVICE_PREFIX))

    def _prune(self, network: str) -> None:
        try:
            removed = prune_versions(
                self._root, network, self._keep, self._catalog.in_use(SERVICE_PREFIX + network)
            )
        except OSError as error:
            logger.warning("old versions of %s cannot be removed: %s", network, error.strerror)
            return
        if removed:
            logger.info("removed old versions of %s: %s", network, ", ".join(removed))
