"""The store of the jobs for the event loop: its calls block, so each runs in a thread of their own.

For SQLite that is one thread: with that the gateway is one writer, and its workers, with a write or two a
second each, are the only others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nonet.jobs.store_contract import JobStore
from nonet.runtime.errors import Unavailable

T = TypeVar("T")

_SHARED_THREADS = 4


class AsyncStore:
    """Use it as ``await store.call(lambda store: store.get(job))``.

    Args:
        store: whose calls are run.
        shared: whether other machines use the store too, which then takes several calls at a time.
    """

    def __init__(self, store: JobStore, *, shared: bool = False) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_SHARED_THREADS if shared else 1, thread_name_prefix="jobs")
        self._closed = False

    async def call(self, work: Callable[[JobStore], T]) -> T:
        """What ``work`` gives, or raises. Raises Unavailable when the store was let go of."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, self._store)
        except RuntimeError as error:
            if self._closed:
                raise Unavailable("the server is shutting down", code="SHUTTING_DOWN") from error
            raise

    def close(self) -> None:
        """Let go of the store."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()
