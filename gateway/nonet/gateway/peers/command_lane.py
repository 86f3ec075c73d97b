"""Commands to Redis over one connection: what has gathered while one batch was under way is the next one."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

Reply = Any
Words = tuple[str | bytes | int, ...]
"""A command and what it is given."""

_MOST_IN_A_BATCH = 64


class CommandLane:
    """See the module's text; commands run in the order in which they came. Belongs to one event loop.

    Args:
        client: the client, which makes the connection.
        failed: told of each command that was not carried out because of the connection, and why.
    """

    def __init__(self, client: Redis, failed: Callable[[Exception], None]) -> None:
        self._client = client
        self._failed = failed
        self._waiting: collections.deque[tuple[Words, asyncio.Future[Reply], int]] = collections.deque()
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._under_way = 0
        self.bytes = 0

    def __len__(self) -> int:
        """Commands that have no answer yet."""
        return len(self._waiting) + self._under_way

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="redis-lane")

    def put(self, words: Words, size: int = 0) -> asyncio.Future[Reply]:
        """Send a command of about ``size`` bytes when its turn comes.

        What comes back is Redis's answer, or the error it answered with, as a result; the exception is that
        of a failed connection. A command whose future is cancelled before its turn is not sent.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((words, future, size))
        self.bytes += size
        self._some.set()
        return future

    def clear(self) -> None:
        """Forget what has not been sent."""
        for _, future, _ in self._waiting:
            future.cancel()
        self._waiting.clear()
        self.bytes = 0

    async def close(self) -> None:
        """End at once; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.clear()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            batch: list[tuple[Words, asyncio.Future[Reply]]] = []
            while self._waiting and len(batch) < _MOST_IN_A_BATCH:
                words, future, size = self._waiting.popleft()
                self.bytes -= size
                if not future.cancelled():
                    batch.append((words, future))
            if not self._waiting:
                self._some.clear()
            if batch:
                self._under_way = len(batch)
                try:
                    await self._send(batch)
                finally:
                    self._under_way = 0

    async def _send(self, batch: list[tuple[Words, asyncio.Future[Reply]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for words, _ in batch:
            pipeline.execute_command(*words)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            # Whatever a connection does, and however the library says so: requests go on without it.
            self._failed(error)
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # seen: whoever asked may have left
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)
