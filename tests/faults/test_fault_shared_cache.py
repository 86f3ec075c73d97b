"""Case 60 and defect 9: gateways with one Redis compute equal requests once, and need it for nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import handmade_networks
from tests.support.bare_sockets import Wire, infer_bytes
from tests.support.redis_server import RedisServer, running_redis
from tests.support.running_server import RunningServer, eventually, running
from tests.support.slow_requests import fresh_value, slow_input

PATIENT = {"timeout": 2.0, "failures": 2, "rest": 0.1}
"""A busy machine is no fault of Redis."""


def settings_with(redis: RedisServer) -> dict[str, Any]:
    return {
        "redis": {"url": redis.url, **PATIENT},
        "scheduler": {"lanes": 1, "default_timeout": 300.0},
        "repository": {"poll_seconds": 0.0},
    }


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    with running_redis() as made:
        yield made


@pytest.fixture(scope="module")
def pair(
    shared_redis: RedisServer, small_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Two gateways with the same models and the same Redis."""
    folder = tmp_path_factory.mktemp("pair")
    settings = settings_with(shared_redis)
    with (
        running(small_repository, folder / "one", settings) as one,
        running(small_repository, folder / "two", settings) as two,
    ):
        yield one, two


@pytest.fixture(scope="module")
def stranger(
    shared_redis: RedisServer, small_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A third gateway with the same Redis, whose ``echo_fp32`` is another network; a test may kill it."""
    folder = tmp_path_factory.mktemp("stranger")
    models = shutil.copytree(small_repository, folder / "models")
    shutil.rmtree(models / "echo_fp32")
    handmade_networks.add_scaled(models, "echo_fp32", 3.0, 1)
    server = RunningServer(models, folder, settings_with(shared_redis))
    yield server
    server.kill()


def echo(value: float) -> list[dict[str, Any]]:
    return [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}]


def written(server: RunningServer) -> float:
    return server.metric("nonet_shared_cache_writes_total", outcome="written")


def test_a_thousand_equal_requests_at_two_gateways_are_one_execution(
    pair: tuple[RunningServer, RunningServer],
) -> None:
    value = fresh_value()
    before = sum(server.executions("slow") for server in pair)
    wires = [Wire(server.http_port) for _ in range(50) for server in pair]
    for wire in wires:
        wire.send(10 * infer_bytes("slow", slow_input(value)))
    replies = [wire.reply() for wire in wires for _ in range(10)]
    for wire in wires:
        wire.close()
    assert {reply.status for reply in replies} == {200}
    assert {json.loads(reply.body)["outputs"][0]["data"][0] for reply in replies} == {value}
    assert sum(server.executions("slow") for server in pair) == before + 1


def test_what_one_gateway_answered_is_a_hit_at_the_other(pair: tuple[RunningServer, RunningServer]) -> None:
    one, two = pair
    value, kept = fresh_value(), written(one)
    found = two.metric("nonet_shared_cache_lookups_total", outcome="found")
    first = one.infer("echo_fp32", echo(value))
    eventually(lambda: written(one) > kept, "it is in Redis")
    second, third = (two.infer("echo_fp32", echo(value)) for _ in range(2))
    assert [reply.headers["X-Cache"] for reply in (first, second, third)] == ["miss", "hit", "hit"]
    assert first.json()["outputs"] == second.json()["outputs"] == third.json()["outputs"]
    # The third came out of its own memory.
    assert two.metric("nonet_shared_cache_lookups_total", outcome="found") == found + 1


def test_a_poisoned_value_is_computed_anew(
    pair: tuple[RunningServer, RunningServer], shared_redis: RedisServer
) -> None:
    one, two = pair
    value, kept = fresh_value(), written(one)
    known = set(shared_redis.client.keys("*:answer:*"))
    one.infer("echo_fp32", echo(value))
    eventually(lambda: written(one) > kept, "it is in Redis")
    (name,) = set(shared_redis.client.keys("*:answer:*")) - known
    shared_redis.client.setrange(name, shared_redis.client.strlen(name) - 4, "hurt")
    reply = two.infer("echo_fp32", echo(value))
    assert reply.headers["X-Cache"] == "miss"
    assert reply.json()["outputs"][0]["data"] == [value]


def test_another_model_of_the_same_name_and_version_has_answers_of_its_own(
    pair: tuple[RunningServer, RunningServer], stranger: RunningServer
) -> None:
    value, kept = fresh_value(), written(pair[0])
    pair[0].infer("echo_fp32", echo(value))
    eventually(lambda: written(pair[0]) > kept, "it is in Redis")
    reply = stranger.infer("echo_fp32", echo(value))
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == [3.0 * value]


def test_a_gateway_killed_while_it_computes_leaves_its_lease_and_no_more(
    pair: tuple[RunningServer, RunningServer], shared_redis: RedisServer, stranger: RunningServer
) -> None:
    value = fresh_value()
    with Wire(stranger.http_port) as wire:
        wire.send(infer_bytes("slow", slow_input(value)))
        eventually(lambda: shared_redis.client.keys("*:lease:*"), "it has the lease")
        stranger.kill()
    reply = pair[0].infer("slow", slow_input(value))
    assert reply.status_code == 200
    assert reply.json()["outputs"][0]["data"] == [value]
    eventually(lambda: not shared_redis.client.keys("*:lease:*"), "no lease is left")


class Traffic:
    """Requests to both gateways without a pause, of which half were asked before."""

    def __init__(self, pair: tuple[RunningServer, RunningServer]) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(server,)) for server in pair]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until some more requests have been answered."""
        wanted = self.answered + 20
        eventually(lambda: self.answered >= wanted or self.failed, "requests are answered")
        assert not self.failed, self.failed[:3]

    def _ask(self, server: RunningServer) -> None:
        value = 0.0
        while not self._end.is_set():
            value += 0.5
            reply = server.infer("echo_fp32", echo(-float(int(value))))
            if reply.status_code != 200 or reply.json()["outputs"][0]["data"] != [-float(int(value))]:
                self.failed.append(reply.text)
                return
            self.answered += 1


def test_case_60_defect_9_no_request_fails_whatever_redis_does(
    pair: tuple[RunningServer, RunningServer], shared_redis: RedisServer
) -> None:
    one, two = pair

    def left_alone() -> bool:
        return all(server.metric("nonet_redis_resting") == 1 for server in pair)

    def shares() -> bool:
        value, kept = fresh_value(), written(one)
        one.infer("echo_fp32", echo(value))
        eventually(lambda: written(one) > kept or one.metric("nonet_redis_resting"), "it is in Redis")
        return two.infer("echo_fp32", echo(value)).headers["X-Cache"] == "hit"

    with Traffic(pair) as traffic:
        traffic.goes_on()
        eventually(shares, "answers are shared")
        shared_redis.hang()
        eventually(left_alone, "a Redis that hangs is left alone")
        traffic.goes_on()
        shared_redis.go_on()
        eventually(shares, "answers are shared again")
        shared_redis.kill()
        eventually(left_alone, "a Redis that is gone is left alone")
        traffic.goes_on()
        shared_redis.start()
        eventually(shares, "answers are shared again")
        shared_redis.client.config_set("maxmemory", "1")
        traffic.goes_on()
        assert not traffic.failed
