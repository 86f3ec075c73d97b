"""New versions that jobs publish, watched on live requests: one that is unsure of clearly more rows than the
version before it was is followed by that version again."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from nonet.gateway.core.records import Observer, RequestRecord
from nonet.gateway.core.shadow_runs import is_unsure_of_more
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ModelRefused, ServingError
from nonet.runtime.repository.layout import read_model
from nonet.runtime.repository.publish import republish_version

__all__ = ["VersionWatch"]

logger = logging.getLogger(__name__)

OF_A_JOB: Final = "nonet job "
"""What the command of a version begins with that a job has published."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Rows that a version has answered, and how many of them it was unsure of."""

    rows: int = 0
    unsure: int = 0

    @property
    def share(self) -> float:
        return self.unsure / self.rows


@dataclasses.dataclass(slots=True)
class _Seen:
    """The block of rows that a version is at, and the last that was full."""

    open: _Block = _Block()
    full: _Block | None = None


class VersionWatch(Observer):
    """See the module's text.

    Those rows count of which a model says whether it is unsure (``UNSURE_ROWS`` of a response). Block by
    block the newest version is compared with the last block of the version before it
    (:func:`~.shadow_runs.is_unsure_of_more`). What follows a worse one is a new version with the files of the
    one before, so that numbers only grow and every server of the repository sees it.

    Attributes:
        put_back: how often, by model.

    Args:
        catalog: says which version is the newest, and who made it.
        root: folder of the model repository.
        rows: of a block, 1 or more.
        reload: brings the catalog up to date with the repository; called in a thread.
    """

    def __init__(self, catalog: Catalog, root: Path, rows: int, reload: Callable[[], object]) -> None:
        self._catalog = catalog
        self._root = root
        self._rows = rows
        self._reload = reload
        self._seen: defaultdict[str, dict[str, _Seen]] = defaultdict(dict)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="version-watch")
        self.put_back: dict[str, int] = {}

    def on_request(self, record: RequestRecord) -> None:
        if record.unsure is None or not record.model:
            return
        versions = self._seen[record.model]
        seen = versions.setdefault(record.version, _Seen())
        block = _Block(seen.open.rows + record.rows, seen.open.unsure + record.unsure)
        if block.rows < self._rows:
            seen.open = block
            return
        seen.open, seen.full = _Block(), block
        newest = self._catalog.newest(record.model)
        if newest is None or newest.version != record.version:
            return
        if not str(newest.details.get("command", "")).startswith(OF_A_JOB):
            return
        before = _before(versions, record.version)
        if before is None:
            return
        version, known = before
        if is_unsure_of_more((block.rows, block.unsure), (known.rows, known.unsure)):
            why = (
                f"it was unsure of {block.share:.0%} of {block.rows} rows, version {version} of "
                f"{known.share:.0%}"
            )
            self._thread.submit(self._put_back, record.model, newest.network, record.version, version, why)

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        # The version before stays known: it is what the next one is compared with.
        if not present and self._catalog.newest(model) is None:
            self._seen.pop(model, None)

    def _put_back(self, model: str, network: str, version: str, before: str, why: str) -> None:
        """In a thread of its own."""
        folder = read_model(self._root, network)
        if folder is None or folder.versions[-1].version != version:
            return  # another server, or another job, was first
        try:
            again = f"version {before} again, for version {version}: {why}"
            made = republish_version(self._root, network, before, command=again)
        except (ServingError, ModelRefused, OSError) as error:
            logger.error(
                "version %s of %s is worse (%s), and cannot be followed: %s", version, network, why, error
            )
            return
        self.put_back[model] = self.put_back.get(model, 0) + 1
        logger.warning(
            "version %s of %s follows version %s with the files of %s: %s",
            made.version,
            network,
            version,
            before,
            why,
        )
        self._reload()


def _before(versions: dict[str, _Seen], version: str) -> tuple[str, _Block] | None:
    """The newest version before one, and its last full block."""
    known = [
        (each, seen.full)
        for each, seen in versions.items()
        if int(each) < int(version) and seen.full is not None
    ]
    return max(known, key=lambda each: int(each[0]), default=None)
