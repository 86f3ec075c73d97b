"""Quotas that hold for all gateways of a deployment together, without a request that waits for it.

Each gateway decides by its own bucket and tells Redis at once what it took; what comes back is the level of
the bucket of all, which becomes its own. Between the two a gateway may let through what another took in the
same milliseconds; that is a debt which all of them pay off, so over any longer time the rate holds. While
Redis is away each gateway holds the whole quota by itself, as one alone does: nobody within it is refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from nonet.gateway.peers.peer_link import Away, PeerLink
from nonet.gateway.settings.schema import Settings

# KEYS: the tenants' buckets. ARGV: rate, burst, seconds after which an idle bucket is full, then what each
# tenant took. The new level of each, as text, since a number would lose its fraction. Debts end at one burst.
_TAKE: Final = """
local rate, burst, idle = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local levels = {}
for place, name in ipairs(KEYS) do
  local kept = redis.pcall('HMGET', name, 'level', 'at')
  if kept.err then redis.call('DEL', name) kept = {} end
  local level, at = tonumber(kept[1] or burst) or burst, tonumber(kept[2] or now) or now
  level = math.min(burst, level + math.max(now - at, 0) * rate)
  level = math.max(level - tonumber(ARGV[3 + place]), -burst)
  redis.call('HSET', name, 'level', string.format('%.9g', level), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', name, idle)
  levels[place] = string.format('%.9g', level)
end
return levels
"""

_LONGEST_IDLE: Final = 1e9
"""Seconds, which Redis still takes for a time to live."""


class SharedQuotas:
    """See the module's text. Belongs to one event loop.

    Args:
        link: to Redis.
        settings: all settings.

    Attributes:
        correct: told the level of a tenant's bucket, in requests, whenever it is known.
    """

    def __init__(self, link: PeerLink, settings: Settings) -> None:
        self.correct: Callable[[str, float], None] = lambda tenant, level: None
        self._link = link
        self._prefix = settings.redis.prefix.encode() + b":quota:"
        self._rate, self._burst = settings.auth.requests_per_second, settings.auth.burst
        self._untold: Counter[str] = Counter()
        self._telling: asyncio.Task[None] | None = None

    def took(self, tenant: str) -> None:
        """A request of ``tenant`` was let through here."""
        if self._link.open:
            return
        self._untold[tenant] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def settled(self) -> None:
        """Wait until everything that was taken has been told, or Redis is away."""
        while self._telling is not None:
            await asyncio.wait({self._telling})

    async def _tell(self) -> None:
        try:
            while self._untold:
                told, self._untold = self._untold, Counter()
                try:
                    levels = await self._link.ask(*self._command(told))
                except Away:
                    # Later it would be a debt for requests that were within the quota when they came.
                    self._untold.clear()
                    return
                for tenant, level in zip(told, levels, strict=True):
                    self.correct(tenant, float(level) - self._untold.get(tenant, 0))
        finally:
            self._telling = None

    def _command(self, told: Counter[str]) -> tuple[str | bytes | int, ...]:
        idle = int(min(2 * self._burst / self._rate, _LONGEST_IDLE)) + 60
        names = [self._prefix + tenant.encode() for tenant in told]
        given: tuple[str | int, ...] = (f"{self._rate:.9g}", self._burst, idle, *told.values())
        return ("EVAL", _TAKE, len(names), *names, *given)
