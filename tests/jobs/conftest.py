"""Job stores of the test's own, of each kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nonet.jobs import JobStore, StoreAddress
from tests.support.redis_server import RedisServer

MakeStore = Callable[[], JobStore]
_NAMES = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that leave it as it was; each has keys of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Opens the same store again and again, as several processes do."""
    made: list[JobStore] = []
    address = StoreAddress()
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        address = StoreAddress(url, f"test{next(_NAMES)}", 30.0)

    def make() -> JobStore:
        made.append(address.open(tmp_path))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> JobStore:
    return make_store()
