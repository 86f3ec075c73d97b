"""The protocol that a store of cached responses implements, in memory or shared."""

from __future__ import annotations

from typing import Protocol


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
