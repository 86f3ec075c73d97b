"""Notifies the dispatcher and the observers when a model version is added and when it has been released.

Catalog changes happen in any thread and the memories belong to the event loop, so the news is carried over.
A version has left when its last lease has gone: whatever it still had to tell has been told by then, and
nothing that is forgotten is made anew by a straggler.
"""

from __future__ import annotations

import asyncio

from nonet.gateway.core.dispatcher import Dispatcher
from nonet.gateway.core.records import Observer
from nonet.runtime.catalog import Catalog
from nonet.runtime.servable import ModelInfo


class ModelEvents:
    """See the module's text.

    Args:
        catalog: what comes and goes.
        dispatcher: forgets the latencies of what left.
        observers: told of both; the list is the owner's and may grow.
    """

    def __init__(self, catalog: Catalog, dispatcher: Dispatcher, observers: list[Observer]) -> None:
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._observers = observers
        self._loop: asyncio.AbstractEventLoop | None = None
        catalog.on_change(self._changed)
        catalog.on_close(self._closed)

    def start(self) -> None:
        """Tell of what is there, and from now on of every change; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        for info in self._catalog.infos():
            self._look(info.name, info.version)

    def stop(self) -> None:
        """Ignore further changes."""
        self._loop = None

    def _changed(self, name: str, version: str, info: ModelInfo | None) -> None:
        if info is not None and (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._look, name, version)

    def _closed(self, name: str, version: str) -> None:
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._look, name, version)

    def _look(self, name: str, version: str) -> None:
        # The catalog is asked again: a version that closed may have been published anew meanwhile.
        present = self._catalog.has(name, version)
        if not present:
            self._dispatcher.forget((name, version))
        for observer in self._observers:
            observer.on_model(name, version, present=present)
