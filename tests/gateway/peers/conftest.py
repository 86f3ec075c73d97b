"""A Redis for the tests of what gateways share: one for all that do nothing to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture(scope="package")
def kept_redis() -> Iterator[RedisServer]:
    with running_redis() as made:
        yield made


@pytest.fixture
def redis_server(kept_redis: RedisServer) -> RedisServer:
    """An empty Redis that goes on when the test is over."""
    kept_redis.client.flushall()
    return kept_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may do anything to."""
    with running_redis() as made:
        yield made
        made.go_on()
