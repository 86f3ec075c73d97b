"""Measures in the background which engine is the fastest right one for each network, as the server runs.

What ``nonet models profile`` does by hand is done here for what has no current profile on this machine, the
networks that have run most first, in a thread of low priority. It waits while anything is executed and ends
after a bounded time, its waits left out; what it had not finished then is measured after the next start.
A finished profile is stored, and the version is published anew with the engine it chose: requests under way
keep the one they hold, and since the engine is in the version's digest no answer of the other is taken from
the cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

from nonet.gateway.core.records import BatchRecord, Observer
from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.backends.registry import installed_backends
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ModelRefused
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, read_model
from nonet.runtime.repository.loader import PreparedVersion, prepare_version
from nonet.runtime.repository.selection import profile_version
from nonet.runtime.servable import ModelInfo

__all__ = ["EngineMeasuring"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02  # between looks whether the server is idle
_SIZE_SECONDS = 0.1  # of measuring, by engine and batch size
_NICENESS = 10


class _Ended(Exception):
    """The time is used up, or the server leaves."""


class EngineMeasuring(Observer):
    """See the module's text.

    Args:
        catalog: what is loaded.
        repository: where it comes from, and who publishes it anew.
        options: how it was loaded.
        seconds: of measuring in all, waits left out.
        busy: whether anything is executed now; called from another thread than the event loop's.
        store: where profiles are kept; by default this machine's, in the user's cache.

    ``measured``: names of the networks that were, in that order.
    """

    def __init__(
        self,
        catalog: Catalog,
        repository: RepositoryManager,
        options: BackendOptions,
        seconds: float,
        busy: Callable[[], bool],
        store: ProfileStore | None = None,
    ) -> None:
        self._catalog = catalog
        self._repository = repository
        self._options = dataclasses.replace(options, budget=None)
        self._seconds = seconds
        self._busy = busy
        self._store = store or ProfileStore()
        self._runs: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-measuring", daemon=True)
        self._ends = 0.0
        self.measured: list[str] = []

    def on_batch(self, record: BatchRecord) -> None:
        self._runs[record.model] += 1

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Do not begin another execution. Returns at once: a thread in one must not keep the server."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until it has ended by itself."""
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # on Linux this is the priority of a thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        self._ends = time.monotonic() + self._seconds
        tried: set[str] = set()
        try:
            while (info := self._next(tried)) is not None:
                tried.add(str(info.details["content"]))
                self._measure(info)
        except _Ended:
            pass
        except OSError as error:
            logger.warning("engines are not measured any further: %s", error.strerror or error)
        except Exception:  # the server serves on without it
            logger.exception("engines are not measured any further")

    def _next(self, tried: set[str]) -> ModelInfo | None:
        """The network without a current profile whose services and itself have run most."""
        runs: Counter[str] = Counter()
        networks = []
        for info in self._catalog.infos():
            runs[info.network or info.name] += self._runs[info.name]
            content = str(info.details.get("content", ""))
            if not info.network and content and content not in tried and not self._is_current(content):
                networks.append(info)
        return max(networks, key=lambda info: runs[info.name], default=None)

    def _is_current(self, content: str) -> bool:
        stored = self._store.read(content)
        if stored is None or stored.threads != self._options.threads:
            return False
        measured = {(each.engine, each.engine_version, each.precision) for each in stored.engines}
        return measured == {
            (engine.name, engine.version, precision)
            for engine in installed_backends()
            for precision in engine.precisions()
        }

    def _measure(self, info: ModelInfo) -> None:
        try:
            prepared = self._prepared(info)
            if prepared is None or prepared.engine:
                return
            profile = profile_version(
                prepared, self._options, self._store.machine, budget=_SIZE_SECONDS, pause=self._pause
            )
        except ModelRefused as refused:
            logger.warning("model %s cannot be measured: %s", info.name, refused.reason)
            return
        self._store.write(profile)
        self.measured.append(info.name)
        choice = profile.choice
        logger.info("model %s was measured: %s %s", info.name, choice.engine, choice.precision)
        self._pause()
        self._repository.refresh()

    def _prepared(self, info: ModelInfo) -> PreparedVersion | None:
        """The version's files, verified again; None if they are not what is loaded."""
        folder = read_model(self._repository.root, info.name)
        found = [each for each in folder.versions if each.version == info.version] if folder else []
        if folder is None or not found:
            return None
        config = read_config(folder.path / CONFIG_FILE)
        prepared = prepare_version(self._repository.root, folder, found[0], config, hasher=FileHasher())
        return prepared if prepared.content == info.details["content"] else None

    def _pause(self) -> None:
        """Wait until nothing is executed. Raises _Ended if there is no time left."""
        began = time.monotonic()
        while self._busy() and not self._stopping.is_set():
            self._stopping.wait(_LOOK_SECONDS)
        now = time.monotonic()
        self._ends += now - began
        if self._stopping.is_set() or now >= self._ends:
            raise _Ended
