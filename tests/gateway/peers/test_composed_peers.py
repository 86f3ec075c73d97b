"""What the settings make of a shared Redis: nothing without one, one connection for all with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nonet.gateway.process.compose import compose
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.runtime.errors import QuotaExceeded
from tests.support.peer_links import peer_settings
from tests.support.redis_server import RedisServer


def here(settings: Settings, folder: Path) -> Settings:
    """The same, with the folders of jobs and models in ``folder``."""
    return settings.model_copy(
        update={
            "jobs": settings.jobs.model_copy(update={"path": folder / "jobs"}),
            "repository": settings.repository.model_copy(update={"path": folder / "models"}),
        }
    )


def test_without_a_url_nothing_is_shared(tmp_path: Path) -> None:
    gateway = compose(here(Settings(), tmp_path))
    assert gateway.peers is None
    assert b"nonet_redis" not in gateway.page.render()[0]


async def test_requests_are_taken_from_the_quota_of_all_gateways(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    gateways = [compose(here(peer_settings(redis_server), tmp_path / name)) for name in "ab"]
    passed = 0
    for gateway in gateways:
        assert gateway.peers is not None
        assert gateway.peers.quotas is not None
        await gateway.peers.start()
        for _ in range(12):
            try:
                gateway.parts.calls._gatekeeper.authenticate("Bearer a key")
                passed += 1
            except QuotaExceeded as error:
                assert error.retry_after is not None
                assert error.retry_after > 10
            await gateway.peers.quotas.settled()
        await gateway.peers.close()
    assert passed == 11  # one before the second gateway had heard of the first


@pytest.mark.parametrize(
    ("redis", "shared"),
    [
        ({}, (True, True)),
        ({"answers": False}, (False, True)),
        ({"quotas": False}, (True, False)),
    ],
)
async def test_each_part_can_be_switched_off(
    redis_server: RedisServer, tmp_path: Path, redis: dict[str, Any], shared: tuple[bool, bool]
) -> None:
    peers = compose(here(peer_settings(redis_server, **redis), tmp_path)).peers
    assert peers is not None
    assert (peers.answers is not None, peers.quotas is not None) == shared


def test_a_service_alone_shares_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    """It would wait for the lease of the gateway that asks it."""
    assert compose(here(peer_settings(redis_server), tmp_path), only="recognition").peers is None


@pytest.mark.parametrize("url", ["http://:hunter2@host", "hunter2", "redis://:hunter2/x@host:port/0"])
def test_what_is_no_url_of_a_redis_is_refused_without_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"redis\.url") as refused:
        compose(here(Settings.model_validate({"redis": {"url": url}}), tmp_path))
    assert "hunter2" not in str(refused.value)
