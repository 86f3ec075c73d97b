"""The store of one process: least recently used goes first, bounded in bytes, with a time to live."""

from __future__ import annotations

from collections import OrderedDict

from nonet.gateway.settings.schema import CacheSettings
from nonet.runtime.clock import Clock

_OVERHEAD = 200  # bytes of bookkeeping per entry, so that a million tiny entries are bounded too


class MemoryStore:
    """A :class:`~nonet.gateway.cache.response_cache.CacheStore` in this process; not thread-safe."""

    def __init__(self, limits: CacheSettings, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, slot: bytes) -> bytes | None:
        found = self._entries.get(slot)
        if found is None:
            return None
        expires, entry = found
        if self._clock.now() >= expires:
            self._drop(slot)
            return None
        self._entries.move_to_end(slot)
        return entry

    async def set(self, slot: bytes, entry: bytes) -> None:
        self._drop(slot)
        size = len(entry) + _OVERHEAD
        if size > min(self._limits.max_entry_bytes, self._limits.max_bytes):
            return
        self._entries[slot] = (self._clock.now() + self._limits.ttl, entry)
        self.used_bytes += size
        while self.used_bytes > self._limits.max_bytes:
            self._drop(next(iter(self._entries)))

    async def delete(self, slot: bytes) -> None:
        self._drop(slot)

    async def close(self) -> None:
        self._entries.clear()
        self.used_bytes = 0

    def _drop(self, slot: bytes) -> None:
        found = self._entries.pop(slot, None)
        if found is not None:
            self.used_bytes -= len(found[1]) + _OVERHEAD
