"""The model repository as the faces and the process use it: one change at a time, in a thread of its own.

Loading and unloading block for seconds. In the event loop's common pool they would take the threads that
decode requests, and two loads of one model would race for the same memory.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

__all__ = ["Repository", "RepositoryControl"]

T = TypeVar("T")


class Repository(Protocol):
    """What control needs of a model repository; all calls block."""

    def load(self, name: str, config_override: str | None = None) -> object: ...

    def unload(self, name: str, timeout: float = ...) -> object: ...


class RepositoryControl:
    """Runs the repository's blocking calls one after another, in the order they came.

    Args:
        repository: the model repository.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="repository")

    async def load(self, name: str, config_override: str | None = None) -> None:
        """Load a model; raises what the repository raises."""
        await self.run(functools.partial(self._repository.load, name, config_override))

    async def unload(self, name: str) -> None:
        """Unload a model once the requests that use it are done; raises what the repository raises."""
        await self.run(functools.partial(self._repository.unload, name))

    async def run(self, work: Callable[[], T]) -> T:
        """Any other blocking call on the repository, in its turn. What has begun ends even if the caller
        leaves; what has not is dropped."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Take no further work and drop what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
