"""How many requests are between their first byte and their answer, and waiting until there are none."""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["InFlight"]


class InFlight:
    """Counts requests: one for as long as each ``with`` block on it runs. Belongs to one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.count += 1
        if self.count == 1:
            self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._none.set()

    async def end(self, seconds: float) -> bool:
        """Wait until no request is left, at most ``seconds``; whether none is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._none.wait()
        return self.count == 0
