"""The cache as the core uses it: a store, exact keys, checked entries."""

from __future__ import annotations

import dataclasses
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


class ResponseCache:
    """Looks answers up and keeps them. Only answers are kept, never errors.

    Args:
        store: where entries live; None keeps nothing but still joins equal requests in flight.
    """

    def __init__(self, store: CacheStore | None) -> None:
        self._store = store
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

    async def put(self, key: bytes, response: InferResponse) -> None:
        """Keep an answer."""
        if self._store is not None:
            await self._store.set(key[:_SLOT], encode_entry(key, response))

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
