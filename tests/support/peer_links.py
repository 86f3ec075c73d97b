"""Links to a real Redis for tests: patient ones, since a busy machine is no fault of Redis."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from nonet.gateway.peers import PeerLink
from nonet.gateway.settings.schema import Settings
from tests.support.redis_server import RedisServer


def peer_settings(server: RedisServer, **redis: Any) -> Settings:
    """Settings of a gateway that uses ``server``, with a quota of a request in a hundred seconds."""
    given = {"url": server.url, "timeout": 5.0, "rest": 0.05, **redis}
    quota = {"requests_per_second": 0.01, "burst": 10, "keys": {"ann": "a key"}}
    return Settings.model_validate({"redis": given, "auth": quota})


@contextlib.asynccontextmanager
async def linked(settings: Settings) -> AsyncIterator[PeerLink]:
    """A link that is connected, for the length of an ``async with`` block."""
    link = PeerLink(settings.redis)
    await link.start()
    try:
        yield link
    finally:
        await link.close()
