"""Cases 60 and 77 for captures over Redis: any gateway has the picture, and nobody takes it away early."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.building_gateway import events, job_of, settle, under_way, wait_for
from tests.support.capture_gateway import CAPTURE, LONG, SLOW, developed, result_of, submit, submitted
from tests.support.redis_server import RedisServer
from tests.support.running_server import RunningServer, eventually
from tests.support.shared_jobs import Site

pytestmark = pytest.mark.timeout(300)

_ALL_KEYS = """
local found = {}
for _, name in ipairs(redis.call('KEYS', '*')) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('DUMP', name)
end
return found
"""


def offered(server: RunningServer) -> str:
    """Id of a job of the first capture that the gateway takes, once somebody offers to develop."""
    eventually(lambda: submit(server, key="first").status_code == 202, "development is offered")
    job: str = submit(server, key="first").json()["job"]["id"]
    wait_for(server, job, "succeeded")
    return job


class Moment:
    """All that a Redis holds at a moment, to which it can go back as one does whose replica lagged."""

    def __init__(self, server: RedisServer) -> None:
        self._client = redis.Redis.from_url(server.url)
        flat: Any = self._client.eval(_ALL_KEYS, 0)
        self._held = dict(zip(flat[::2], flat[1::2], strict=True))

    def bring_back(self) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for name, value in self._held.items():
                pipe.restore(name, 0, value)
            pipe.execute()
        self._client.close()


def test_case_77_a_picture_is_fetched_from_another_gateway_at_once(raw_site: Site) -> None:
    first, second = raw_site.gateway(0), raw_site.gateway(0)
    raw_site.work()
    offered(first)
    for output in ("png", "png16", "jpeg", "tiff16"):
        job = submitted(first, output=output)
        last = [found for _, _, found in events(first, job)][-1]
        assert last["state"] == "succeeded"
        reply = second.http.get(last["result"]["file"])
        assert reply.status_code == 200, reply.text
        assert reply.content == developed(second, output=output).content
        assert job_of(second, job) == job_of(first, job) == last


def test_case_60_a_redis_that_goes_back_does_not_cost_a_picture(raw_site: Site) -> None:
    server = raw_site.gateway(0)
    raw_site.work()
    offered(server)
    job = submitted(server, LONG, model=SLOW)
    under_way(server, job, 0.3)
    moment = Moment(raw_site.redis)
    before = wait_for(server, job, "succeeded")
    picture = result_of(server, job).content
    eventually(lambda: not any((raw_site.folder / "work").iterdir()), "its folder is gone")
    moment.bring_back()
    eventually(lambda: job_of(server, job)["attempts"] == 2, "it runs again")
    ended = wait_for(server, job, "succeeded")
    assert ended["result"] == before["result"]
    assert result_of(server, job).content == picture == developed(server, LONG).content


def test_case_77_nobody_who_passes_by_takes_what_a_gateway_keeps(raw_site: Site, tmp_path: Path) -> None:
    server = raw_site.gateway(0)
    raw_site.work()
    job = offered(server)
    picture = developed(server, CAPTURE).content
    # One that only works, with limits of its own.
    hasty = raw_site.work(keep_result_seconds=0.5, keep_seconds=0.5, keep_result_bytes=1)
    settle(2.0)
    assert hasty.stop() == 0
    assert result_of(server, job).content == picture
    # Gateways with another store in the same folder: other keys, and no Redis at all.
    there = dict(raw_site.environment)
    for environment in ({**there, "NONET_JOBS__STORE_PREFIX": "other"}, {}):
        raw_site.environment = environment
        stranger = raw_site.gateway(0)
        eventually(lambda of=stranger: of.http.get("/v1/jobs").status_code == 200, "it has its store")
        settle(2.0)
        assert stranger.stop() == 0
        assert result_of(server, job).content == picture
    # A machine whose clock is eight days ahead.
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / "sitecustomize.py").write_text(
        "import time\n_now = time.time\ntime.time = lambda: _now() + 8 * 86400\n"
    )
    raw_site.environment = {**there, "PYTHONPATH": ":".join((str(ahead), *filter(None, sys.path)))}
    late = raw_site.gateway(0)
    settle(2.0)
    assert late.stop() == 0
    assert result_of(server, job).content == picture
