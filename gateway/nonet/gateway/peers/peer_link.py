"""The connection of a gateway to the Redis it shares with others, which costs a request next to nothing.

A question is given up after a time limit of milliseconds, and what is written is written later. After some
failures in a row Redis is left alone (a circuit breaker): nobody asks it anything until it has answered a
PING that is sent in the background. Questions of the same moment travel together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter

import redis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from nonet.gateway.peers.command_lane import CommandLane, Reply
from nonet.gateway.settings.redis_settings import RedisSettings

logger = logging.getLogger(__name__)

_CONNECTION_SECONDS = 1.0
"""After which a connection that brings nothing is closed, whoever still waits for it."""

_LONGEST_REST = 16
"""Times ``rest``: how long Redis is left alone at most before the next PING."""

_MOST_QUESTIONS = 4096
"""Questions without an answer; one more is not asked."""


class Away(Exception):
    """Redis has not answered in time, has refused, or is left alone for now."""


class PeerLink:
    """See the module's text. Belongs to one event loop.

    Attributes:
        open: whether the breaker is open, so that Redis is left alone.
        failures: what went wrong so far, by kind: ``late`` (no answer in time), ``connection``, ``refused``
            (Redis answered with an error), ``resting`` (not asked, since the breaker was open).

    Args:
        settings: where Redis is and what it may cost.

    Raises ValueError for a URL that cannot be one.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.open = False
        self.failures: Counter[str] = Counter(late=0, connection=0, refused=0, resting=0)
        self._limit = settings.timeout
        self._most_failures = settings.failures
        self._most_unwritten = settings.max_unwritten_bytes
        self._rest = self._pause = settings.rest
        self._in_a_row = 0
        self._refusal = ""
        patience = max(_CONNECTION_SECONDS, 2 * settings.timeout)
        pool: ConnectionPool = ConnectionPool.from_url(
            settings.url.get_secret_value(),
            protocol=2,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Redis = Redis.from_pool(pool)  # and closed with it
        self._patience = patience
        self._questions = CommandLane(self._client, self._connection_failed)
        self._writes = CommandLane(self._client, self._connection_failed)
        self._last_write: asyncio.Future[Reply] | None = None
        self._probing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; waits a second at most. A Redis that is away may come later."""
        self._questions.start()
        self._writes.start()
        if why := await self._no_answer():
            self._leave_alone(why)

    async def ask(self, *words: str | bytes | int) -> Reply:
        """What Redis answers to a command: bytes, a number, a list of them or None. Raises Away."""
        if self.open or len(self._questions) >= _MOST_QUESTIONS:
            self.failures["resting"] += 1
            raise Away
        future = self._questions.put(words)
        try:
            await asyncio.wait({future}, timeout=self._limit)
        finally:
            late = not future.done()
            future.cancel()  # one that is done stays as it is
        if late:
            self._failed("late", f"no answer in {self._limit * 1e3:g} ms")
            raise Away
        if future.cancelled():
            raise Away
        if (error := future.exception()) is not None:
            raise Away from error
        self._in_a_row = 0
        self._pause = self._rest
        reply = future.result()
        if isinstance(reply, Exception):
            self._refused(reply)
            raise Away from reply
        return reply

    def later(self, *words: str | bytes | int, size: int = 0) -> asyncio.Future[Reply] | None:
        """Carry out a command when there is time, after those before it; None if it is not: ``size`` bytes
        would be more than may wait, or Redis is left alone. Cares for its own failures."""
        if self.open or (size and self._writes.bytes + size > self._most_unwritten):
            return None
        future = self._writes.put(words, size)
        future.add_done_callback(self._written)
        self._last_write = future
        return future

    async def close(self) -> None:
        """Write what waits, for a second at most, and close the connections."""
        if self._probing is not None:
            self._probing.cancel()
        if self._last_write is not None:
            await asyncio.wait({self._last_write}, timeout=_CONNECTION_SECONDS)
        await self._questions.close()
        await self._writes.close()
        with contextlib.suppress(redis.RedisError, OSError):
            await self._client.aclose()

    def _written(self, future: asyncio.Future[Reply]) -> None:
        if not future.cancelled() and future.exception() is None and isinstance(future.result(), Exception):
            self._refused(future.result())

    # -- the breaker ----------------------------------------------------------------------------

    def _connection_failed(self, error: Exception) -> None:
        self._failed("connection", _said(error))

    def _refused(self, error: Exception) -> None:
        """Redis answers, so it costs no time: that it is full, or may not be written, opens no breaker."""
        self.failures["refused"] += 1
        why = _said(error)
        if why != self._refusal:  # said once, not at each call
            self._refusal = why
            logger.warning("the Redis that gateways share refuses: %s; requests go on without it", why)

    def _failed(self, kind: str, why: str) -> None:
        self.failures[kind] += 1
        self._in_a_row += 1
        if self._in_a_row >= self._most_failures and not self.open:
            self._leave_alone(why)

    def _leave_alone(self, why: str) -> None:
        logger.warning("the Redis that gateways share is left alone: %s; requests go on without it", why)
        self.open = True
        self._questions.clear()
        self._writes.clear()
        self._probing = asyncio.get_running_loop().create_task(self._probe(), name="redis-probe")

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            # One that answers a PING, but nothing else in time, is tried less and less often.
            self._pause = min(2 * self._pause, _LONGEST_REST * self._rest)
            if not await self._no_answer():
                break
        self._in_a_row = 0
        self.open = False
        logger.info("the Redis that gateways share answers again")

    async def _no_answer(self) -> str:
        """Why Redis does not answer a PING, "" if it does."""
        try:
            async with asyncio.timeout(self._patience):
                await self._client.ping()
        except Exception as error:  # as in a lane: the library's words for it are many
            return _said(error)
        return ""


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
