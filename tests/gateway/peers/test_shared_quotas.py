"""Quotas of two gateways with one Redis: one bucket together, each its own while Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nonet.gateway.core.gatekeeper import Gatekeeper
from nonet.gateway.peers import PeerLink, SharedQuotas
from nonet.gateway.settings.schema import Settings
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.errors import QuotaExceeded
from tests.support.peer_links import linked, peer_settings
from tests.support.redis_server import RedisServer


class Desk:
    """What decides on the requests of one gateway."""

    def __init__(self, link: PeerLink, settings: Settings) -> None:
        self.link = link
        self.quotas = SharedQuotas(link, settings)
        self.gatekeeper = Gatekeeper(settings.auth, MonotonicClock(), self.quotas.took)
        self.quotas.correct = self.gatekeeper.correct

    async def let_through(self, requests: int, *, at_once: bool = False) -> int:
        """How many of so many requests are let through."""
        count = 0
        for _ in range(requests):
            with contextlib.suppress(QuotaExceeded):
                assert self.gatekeeper.authenticate("Bearer a key") == "ann"
                count += 1
            if not at_once:
                await self.quotas.settled()
        await self.quotas.settled()
        return count


@contextlib.asynccontextmanager
async def desk(server: RedisServer, **redis: float) -> AsyncIterator[Desk]:
    settings = peer_settings(server, **redis)
    async with linked(settings) as link:
        yield Desk(link, settings)


async def test_what_one_gateway_let_through_the_other_knows(redis_server: RedisServer) -> None:
    async with desk(redis_server) as one, desk(redis_server) as two:
        assert await one.let_through(7) == 7
        assert await two.let_through(7) == 3
        # What it knew was one answer of Redis old.
        assert await one.let_through(5) == 1
        assert await two.let_through(5) == 0


async def test_a_burst_at_both_at_once_is_a_debt_of_both(redis_server: RedisServer) -> None:
    async with desk(redis_server) as one, desk(redis_server) as two:
        assert await one.let_through(20, at_once=True) == 10
        # It has not heard of it before its first request.
        assert await two.let_through(20, at_once=True) == 10
        assert await two.let_through(1) == 0
        (name,) = redis_server.client.keys("*quota*")
        level = float(redis_server.client.hget(name, "level") or 0)
        assert -10.1 < level < -9.0
        assert 0 < redis_server.client.ttl(name) < 3000


async def test_without_redis_each_holds_the_quota_and_nobody_within_it_is_refused(
    own_redis: RedisServer,
) -> None:
    async with desk(own_redis) as one, desk(own_redis) as two:
        assert await one.let_through(2) == 2
        own_redis.kill()
        assert await one.let_through(20) == 8
        assert await two.let_through(20) == 10
        own_redis.start()
        async with asyncio.timeout(45):
            while one.link.open:
                await asyncio.sleep(0.005)
        one.gatekeeper.correct("ann", 1.0)  # as after a while
        # What was let through meanwhile is no debt.
        assert await one.let_through(5) == 5


async def test_a_bucket_that_is_something_else_starts_anew(redis_server: RedisServer) -> None:
    async with desk(redis_server) as one:
        redis_server.client.set("nonet:quota:ann", "something else")
        assert await one.let_through(20) == 10
