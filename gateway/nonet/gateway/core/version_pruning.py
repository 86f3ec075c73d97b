"""Old versions of the models that jobs publish: a new version leaves the one before it, and too many are
removed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nonet.runtime.catalog import Catalog
from nonet.runtime.repository.publish import prune_versions
from nonet.runtime.servable import ModelInfo

logger = logging.getLogger(__name__)


class VersionPruner:
    """Keeps the newest ``keep`` versions of each model of some tasks in the repository.

    Looks at a model whenever a version of its service was closed, which is when a newer one serves in its
    place and the last request that it had is done. What serves, what requests still hold, and what is newer
    than both stays; see :func:`~nonet.runtime.repository.publish.prune_versions`.

    Args:
        catalog: says what is in use.
        root: folder of the model repository.
        keep: versions that are kept, 1 or more.
        tasks: whose models.
    """

    def __init__(self, catalog: Catalog, root: Path, keep: int, tasks: Collection[str]) -> None:
        self._catalog = catalog
        self._root = root
        self._keep = keep
        self._tasks = frozenset(tasks)
        self._networks: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="old-versions")
        catalog.on_change(self._changed)
        catalog.on_close(self._closed)

    def _changed(self, name: str, version: str, info: ModelInfo | None) -> None:
        if info is not None and info.network and info.task in self._tasks:
            self._networks[name] = info.network

    def _closed(self, name: str, version: str) -> None:
        """In any thread, also the event loop's: the disk has a thread of its own."""
        if (network := self._networks.get(name)) is not None:
            with contextlib.suppress(RuntimeError):  # the process ends
                self._thread.submit(self._prune, name, network)

    def _prune(self, name: str, network: str) -> None:
        try:
            removed = prune_versions(self._root, network, self._keep, self._catalog.in_use(name))
        except OSError as error:
            logger.warning("old versions of %s cannot be removed: %s", network, error.strerror)
            return
        if removed:
            logger.info("removed old versions of %s: %s", network, ", ".join(removed))
