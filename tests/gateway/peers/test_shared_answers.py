"""Answers that gateways share in a real Redis: whole or absent, and made by one of them at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.gateway.cache import MemoryStore, ResponseCache, encode_entry
from nonet.gateway.peers import SharedAnswers, SharedQuotas
from nonet.gateway.settings.schema import CacheSettings
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.requests import InferResponse
from nonet.runtime.tensors import Tensor
from tests.support.peer_links import linked, peer_settings
from tests.support.redis_server import RedisServer

KEY = bytes(range(32))
PATIENT = 1e9
IMPATIENT = 0.0
ROOT = Path(__file__).parents[3]
ANSWER = InferResponse("m", "1", (Tensor.of("y", np.arange(6, dtype=np.float32).reshape(2, 3)),))


@contextlib.asynccontextmanager
async def sharing(server: RedisServer, **redis: Any) -> AsyncIterator[SharedAnswers]:
    given = peer_settings(server, **redis)
    async with linked(given) as link:
        yield SharedAnswers(link, given, MonotonicClock())


def cache_of(answers: SharedAnswers) -> ResponseCache:
    """The cache of a gateway of its own."""
    return ResponseCache(MemoryStore(CacheSettings(), MonotonicClock()), answers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.005)


async def kept(answers: SharedAnswers, key: bytes = KEY, answer: InferResponse = ANSWER) -> None:
    """Keep an answer, and wait until Redis has it."""
    written = answers.writes["written"]
    answers.keep(key, encode_entry(key, answer))
    await until(lambda: answers.writes["written"] > written)


def name_of(server: RedisServer, kind: str = "answer") -> str:
    (name,) = server.client.keys(f"*:{kind}:*")
    return str(name)


tensors = st.one_of(
    st.builds(
        lambda values, kind: Tensor.of("y", np.array(values).astype(kind)),
        st.lists(st.integers(0, 200), min_size=1, max_size=40),
        st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "float16"]),
    ),
    st.builds(
        lambda values: Tensor.of_bytes("t", values, (len(values),)),
        st.lists(st.binary(max_size=30), min_size=1, max_size=6),
    ),
)
parameters = st.dictionaries(st.text(max_size=8), st.one_of(st.booleans(), st.integers(0, 2**31), st.text()))


async def test_what_one_gateway_keeps_another_finds_bit_for_bit(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as one, sharing(redis_server) as other:
        loop = asyncio.get_running_loop()

        @settings(max_examples=40, suppress_health_check=list(HealthCheck))
        @given(st.binary(min_size=32, max_size=32), st.lists(tensors, max_size=3), parameters)
        def comes_back(key: bytes, outputs: list[Tensor], given: dict[str, Any]) -> None:
            answer = InferResponse("m", "1", tuple(outputs), parameters=given)

            async def there_and_back() -> None:
                await kept(one, key, answer)
                async with other.turn(key, PATIENT) as found:
                    assert found is not None
                    back, entry = found
                    assert entry == encode_entry(key, answer)
                    assert dict(back.parameters) == given
                    for got, want in zip(back.outputs, outputs, strict=True):
                        assert (got.name, got.datatype, got.shape) == (want.name, want.datatype, want.shape)
                        assert got.data.tolist() == want.data.tolist()

            asyncio.run_coroutine_threadsafe(there_and_back(), loop).result(60)

        await asyncio.to_thread(comes_back)


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "of another format", "of another type"])
async def test_a_damaged_value_is_absent_and_deleted(redis_server: RedisServer, damage: str) -> None:
    async with sharing(redis_server) as answers:
        await kept(answers)
        name = name_of(redis_server)
        entry = b"NNA1" + encode_entry(KEY, ANSWER)
        if damage == "of another type":
            redis_server.client.delete(name)
            redis_server.client.lpush(name, "a list")
        else:
            bad = {
                "flipped": entry[:-1] + bytes([entry[-1] ^ 1]),
                "short": entry[:60],
                "empty": b"",
                "of another format": b"NNA2" + entry[4:],
            }[damage]
            redis_server.client.set(name, bad)
        async with answers.turn(KEY, PATIENT) as found:
            assert found is None
            assert not redis_server.client.exists(name)
        await kept(answers)
        async with answers.turn(KEY, PATIENT) as found:
            assert found is not None


async def test_the_answer_of_another_request_is_not_taken(redis_server: RedisServer) -> None:
    """As if two keys had the same name, or somebody had moved the value."""
    async with sharing(redis_server) as answers:
        await kept(answers)
        other = bytes(32)
        name = name_of(redis_server)
        redis_server.client.rename(name, name.replace(KEY.hex(), other.hex()))
        async with answers.turn(other, PATIENT) as found:
            assert found is None
        assert answers.lookups["damaged"] == 1


async def test_two_gateways_that_want_the_same_execute_it_once(redis_server: RedisServer) -> None:
    async with sharing(redis_server, lease=60) as one, sharing(redis_server, lease=60) as two:
        executed = 0
        begun, go = asyncio.Event(), asyncio.Event()

        async def execute() -> InferResponse:
            nonlocal executed
            executed += 1
            begun.set()
            await go.wait()
            return ANSWER

        def ask(answers: SharedAnswers) -> asyncio.Task[InferResponse]:
            return asyncio.ensure_future(cache_of(answers).make(KEY, execute, lambda: PATIENT))

        first = ask(one)
        await begun.wait()
        second = ask(two)
        await asyncio.sleep(0)
        go.set()
        replies = await asyncio.gather(first, second)
        assert executed == 1
        assert [reply.cache for reply in replies] == ["bypass", "hit"]
        assert replies[0].outputs[0].data.tolist() == replies[1].outputs[0].data.tolist()
        await until(lambda: not redis_server.client.keys("*:lease:*"))


async def test_a_lease_lasts_as_long_as_the_execution(redis_server: RedisServer) -> None:
    async with sharing(redis_server, lease=0.3) as one, sharing(redis_server) as two:
        async with one.turn(KEY, PATIENT) as found:
            assert found is None
            token = redis_server.client.get(name_of(redis_server, "lease"))
            await asyncio.sleep(0.7)
            assert redis_server.client.get(name_of(redis_server, "lease")) == token
            async with two.turn(KEY, IMPATIENT) as other:
                assert other is None
            assert two.lookups["impatient"] == 1
        await until(lambda: not redis_server.client.keys("*:lease:*"))


async def test_a_gateway_that_died_is_waited_for_no_longer_than_its_lease(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as answers:
        async with answers.turn(KEY, PATIENT):
            name = name_of(redis_server, "lease")
        await until(lambda: not redis_server.client.exists(name))
        redis_server.client.set(name, "of one that died", px=200)
        async with answers.turn(KEY, PATIENT) as found:
            assert found is None
            assert redis_server.client.get(name) != "of one that died"
        assert answers.lookups["absent"] == 2


async def test_who_fails_leaves_the_others_their_own_attempt(redis_server: RedisServer) -> None:
    async with sharing(redis_server, lease=60) as one, sharing(redis_server, lease=60) as two:
        begun, go = asyncio.Event(), asyncio.Event()

        async def fail() -> InferResponse:
            begun.set()
            await go.wait()
            raise ArithmeticError

        async def succeed() -> InferResponse:
            return ANSWER

        first = asyncio.ensure_future(cache_of(one).make(KEY, fail, lambda: PATIENT))
        await begun.wait()
        second = asyncio.ensure_future(cache_of(two).make(KEY, succeed, lambda: PATIENT))
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(ArithmeticError):
            await first
        assert (await second).cache == "bypass"


async def test_answers_that_are_large_or_too_many_are_not_written(redis_server: RedisServer) -> None:
    async with sharing(redis_server, max_entry_bytes=2000, max_unwritten_bytes=3000) as answers:
        answers.keep(KEY, bytes(1997))
        assert answers.writes["large"] == 1
        for _ in range(3):
            answers.keep(KEY, bytes(1400))
        assert answers.writes["dropped"] == 1
        await until(lambda: answers.writes["written"] == 2)


async def test_answers_end_with_their_time_to_live(redis_server: RedisServer) -> None:
    async with sharing(redis_server) as answers:
        await kept(answers)
        assert 3500e3 < redis_server.client.pttl(name_of(redis_server)) <= 3600e3


async def test_a_full_redis_is_read_and_not_written(own_redis: RedisServer) -> None:
    async with sharing(own_redis) as answers:
        await kept(answers)
        own_redis.client.config_set("maxmemory", "1")
        async with answers.turn(KEY, PATIENT) as found:
            assert found is not None
        async with answers.turn(bytes(32), PATIENT) as found:
            assert found is None
        answers.keep(bytes(32), encode_entry(bytes(32), ANSWER))
        await until(lambda: answers.writes["failed"] == 1)
        assert answers.lookups["away"] == 1
        assert not answers._link.open


async def test_who_leaves_while_it_waits_leaves_no_lease(redis_server: RedisServer) -> None:
    async with sharing(redis_server, lease=60) as answers:
        waits = asyncio.Event()

        async def take_turn() -> None:
            async with answers.turn(KEY, PATIENT):
                waits.set()
                await asyncio.Event().wait()

        first = asyncio.ensure_future(take_turn())
        await waits.wait()
        second = asyncio.ensure_future(take_turn())
        await asyncio.sleep(0.05)
        for task in (second, first):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await until(lambda: not redis_server.client.keys("*:lease:*"))


async def test_a_user_that_may_do_nothing_else_is_enough(own_redis: RedisServer) -> None:
    (rule,) = re.findall(r"`(~nonet:\*[^`]+)`", (ROOT / "docs" / "operating.md").read_text())
    words = ("gateways", "on", ">word", "-@all", *rule.split())
    own_redis.client.execute_command("ACL SETUSER", *words)  # type: ignore[no-untyped-call]
    given = peer_settings(own_redis, url=f"redis://gateways:word@127.0.0.1:{own_redis.port}/0")
    async with linked(given) as link:
        answers, quotas = SharedAnswers(link, given, MonotonicClock()), SharedQuotas(link, given)
        told: list[float] = []
        quotas.correct = lambda tenant, level: told.append(level)
        async with answers.turn(KEY, PATIENT):
            await kept(answers)
        own_redis.client.set(name_of(own_redis), "damaged")
        async with answers.turn(KEY, PATIENT) as found:
            assert found is None
        quotas.took("ann")
        await quotas.settled()
        assert len(told) == 1
        assert link.failures.total() == 0
