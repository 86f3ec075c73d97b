"""Answers that several gateways keep in one Redis, and who of them executes what several want at once.

An answer is one value: four bytes that name its format, then the checked entry of
:mod:`nonet.gateway.cache.entry` (whose request it answers, checksum, names, types and shapes, the outputs'
bytes). What does not prove whole is deleted and counts as absent. Names hold the release of Nonet, whose
code decides answers as the model does.

Who finds no answer takes a lease on making it: a key of its own that ends by itself. Whoever finds a lease
looks again until there is an answer or no lease; a gateway that dies leaves its lease for as long as one
lasts. A lease saves work and is no lock: where it is lost, or Redis is away, two execute, to the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from nonet.gateway.cache.entry import decode_entry
from nonet.gateway.peers.peer_link import Away, PeerLink
from nonet.gateway.settings.schema import Settings
from nonet.runtime.clock import Clock
from nonet.runtime.release import VERSION
from nonet.runtime.requests import InferResponse

logger = logging.getLogger(__name__)

FORMAT: Final = b"NNA1"
"""The first bytes of every value; another layout gets other ones."""

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.004, 0.05, 1.5
"""Seconds between two looks for the answer that another gateway is making, the shortest and the longest."""

# Under KEYS: the answer, the lease. The answer, or 1 if the caller has the lease, 0 if another has it, -1 if
# it cannot be had. What is no string at the answer's name is of no use to anybody.
_CLAIM: Final = """
local answer = redis.pcall('GET', KEYS[1])
if type(answer) == 'table' then redis.pcall('DEL', KEYS[1]) answer = false end
if answer then return answer end
if redis.pcall('GET', KEYS[2]) == ARGV[1] then return 1 end
local taken = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if taken == false then return 0 end
return taken.ok and 1 or -1
"""
_RENEW: Final = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE: Final = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class SharedAnswers:
    """See the module's text. Belongs to one event loop.

    Attributes:
        lookups: how often it was looked, by what came of it: ``found``; ``awaited`` (another gateway made
            it meanwhile); ``absent`` (this one makes it, under a lease); ``impatient`` (another makes it, but
            there was no time to wait); ``damaged``; ``away`` (no answer of Redis, or none that helps).
        writes: answers for Redis: ``written``, ``dropped`` (too many wait, or Redis is away), ``large`` or
            ``failed``.

    Args:
        link: to Redis.
        settings: all settings.
        clock: of the requests' deadlines.
    """

    def __init__(self, link: PeerLink, settings: Settings, clock: Clock) -> None:
        names = ("found", "awaited", "absent", "impatient", "damaged", "away")
        self.lookups: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.writes: Counter[str] = Counter(written=0, dropped=0, large=0, failed=0)
        self._link = link
        self._clock = clock
        self._prefix = settings.redis.prefix.encode() + b":" + VERSION.encode()
        self._most_bytes = settings.redis.max_entry_bytes
        self._kept_ms = max(round(settings.cache.ttl * 1e3), 1)
        self._lease_ms = round(settings.redis.lease * 1e3)

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes, until: float) -> AsyncIterator[tuple[InferResponse, bytes] | None]:
        """An answer to the request with ``key``, and its entry; or None, and the block is to make one and to
        hand it to :meth:`keep` while other gateways wait for it.

        ``until``: instant of the clock until which this gateway may wait for another one.
        """
        token = os.urandom(16).hex().encode()
        try:
            found, asked = await self._look(key, token, until)
        except asyncio.CancelledError:
            self._release(key, token)
            raise
        if found is not None:
            yield found
            return
        renewing = None
        if asked:
            renewing = asyncio.get_running_loop().create_task(self._renew(key, token))
        try:
            yield None
        finally:
            if renewing is not None:
                renewing.cancel()
                self._release(key, token)

    def keep(self, key: bytes, entry: bytes) -> None:
        """Write the entry of an answer when there is time."""
        value = FORMAT + entry
        if len(value) > self._most_bytes:
            self.writes["large"] += 1
            return
        name = self._name(b"answer", key)
        future = self._link.later("SET", name, value, "PX", self._kept_ms, size=len(value))
        if future is None:
            self.writes["dropped"] += 1
        else:
            future.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[object]) -> None:
        if future.cancelled():
            self.writes["dropped"] += 1
        elif future.exception() is not None or isinstance(future.result(), Exception):
            self.writes["failed"] += 1
        else:
            self.writes["written"] += 1

    async def _look(
        self, key: bytes, token: bytes, until: float
    ) -> tuple[tuple[InferResponse, bytes] | None, bool]:
        """The answer; or None, and whether a lease may have been taken with ``token``."""
        names = self._name(b"answer", key), self._name(b"lease", key)
        pause, outcome = _FIRST_PAUSE, "found"
        while True:
            try:
                said = await self._link.ask("EVAL", _CLAIM, 2, *names, token, self._lease_ms)
                if isinstance(said, bytes):
                    if (response := _decoded(key, said)) is not None:
                        self.lookups[outcome] += 1
                        return (response, said[len(FORMAT) :]), False
                    self.lookups["damaged"] += 1
                    await self._link.ask("DEL", names[0])
                    continue
            except Away:
                self.lookups["away"] += 1
                return None, True
            if said != 0:
                self.lookups["absent" if said == 1 else "away"] += 1
                return None, said == 1
            if self._clock.now() + pause > until:
                self.lookups["impatient"] += 1
                return None, False
            await asyncio.sleep(pause)
            pause, outcome = min(_GROWTH * pause, _LONGEST_PAUSE), "awaited"

    async def _renew(self, key: bytes, token: bytes) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3e3)
            self._link.later("EVAL", _RENEW, 1, self._name(b"lease", key), token, self._lease_ms)

    def _release(self, key: bytes, token: bytes) -> None:
        """Even if nobody said that there is a lease: a question given up may still be carried out."""
        self._link.later("EVAL", _RELEASE, 1, self._name(b"lease", key), token)

    def _name(self, kind: bytes, key: bytes) -> bytes:
        """Both names of a request are in one slot of a cluster, and hold all of its key."""
        return b"%b:%b:{%b}" % (self._prefix, kind, key.hex().encode())


def _decoded(key: bytes, value: bytes) -> InferResponse | None:
    return decode_entry(key, value[len(FORMAT) :]) if value.startswith(FORMAT) else None
