"""The cache as the core uses it: a store, exact keys, checked entries."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

from nonet.gateway.cache.entry import decode_entry, encode_entry
from nonet.gateway.cache.single_flight import SingleFlight
from nonet.runtime.requests import InferResponse

_SLOT = 16
"""Bytes of a key that say where a store keeps it; an entry repeats all of it."""


class CacheStore(Protocol):
    """Keeps bytes under 16-byte slots, bounded in size and age.

    A store may forget anything at any time, and may hand back a wrong or damaged value: the cache above it
    checks. It must not block the event loop and must not raise for a fault of its own: a failed `get` is
    a miss, a failed `set` is forgotten.
    """

    async def get(self, slot: bytes) -> bytes | None: ...

    async def set(self, slot: bytes, entry: bytes) -> None: ...

    async def delete(self, slot: bytes) -> None: ...

    async def close(self) -> None: ...


class PeerAnswers(Protocol):
    """Answers that several gateways share, and who of them executes what all of them want.

    It must cost a request no more than milliseconds, whatever is the matter, and raise nothing.
    """

    def turn(
        self, key: bytes, until: float
    ) -> contextlib.AbstractAsyncContextManager[tuple[InferResponse, bytes] | None]:
        """An answer that another gateway made, with its entry, waited for until the instant ``until`` at
        most; or None, and the block makes one while others may wait for it."""

    def keep(self, key: bytes, entry: bytes) -> None:
        """Share the entry of an answer, some time after this returns."""


class ResponseCache:
    """Looks answers up and keeps them. Only answers are kept, never errors.

    Args:
        store: where entries live; None keeps nothing but still joins equal requests in flight.
        peers: what other gateways have, if answers are shared with them; not without a store.
    """

    def __init__(self, store: CacheStore | None, peers: PeerAnswers | None = None) -> None:
        self._store = store
        self._peers = peers
        self.flights: SingleFlight[InferResponse] = SingleFlight()

    @property
    def keeps(self) -> bool:
        """Whether answers are kept."""
        return self._store is not None

    async def get(self, key: bytes) -> InferResponse | None:
        """The kept answer, or None. An entry that is another request's or damaged is deleted."""
        if self._store is None:
            return None
        entry = await self._store.get(key[:_SLOT])
        if entry is None:
            return None
        response = decode_entry(key, entry)
        if response is None:
            await self._store.delete(key[:_SLOT])
            return None
        return dataclasses.replace(response, cache="hit")

    async def put(self, key: bytes, response: InferResponse, *, shared: bool = False) -> None:
        """Keep an answer; with ``shared`` also where other gateways find it."""
        if self._store is not None:
            entry = encode_entry(key, response)
            await self._store.set(key[:_SLOT], entry)
            if shared and self._peers is not None:
                self._peers.keep(key, entry)

    async def make(
        self, key: bytes, execute: Callable[[], Awaitable[InferResponse]], until: Callable[[], float] | None
    ) -> InferResponse:
        """What ``execute`` answers, kept; or what another gateway answered to an equal request, a ``hit``.

        ``until``: tells the instant until which another gateway that executes it may be waited for; None if
        the answer is shared with nobody. Raises what the execution raises.
        """
        if self._store is None or self._peers is None or until is None:
            response = await execute()
            await self.put(key, response)
            return response
        async with self._peers.turn(key, until()) as found:
            if found is not None:
                response, entry = found
                await self._store.set(key[:_SLOT], entry)
                return dataclasses.replace(response, cache="hit", device="cache")
            response = await execute()
            await self.put(key, response, shared=True)
            return response

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
