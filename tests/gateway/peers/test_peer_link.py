"""The link while Redis hangs, dies and comes back: left alone after some failures, and found again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from nonet.gateway.peers import Away, PeerLink
from nonet.gateway.settings.redis_settings import RedisSettings
from tests.support.peer_links import linked, peer_settings
from tests.support.redis_server import RedisServer
from tests.support.running_server import free_port


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(45):
        while not condition():
            await asyncio.sleep(0.005)


async def works(link: PeerLink) -> None:
    """Wait until Redis is asked again, and answers."""
    async with asyncio.timeout(45):
        while True:
            await until(lambda: not link.open)
            try:
                assert await link.ask("PING") in (b"PONG", True)
            except Away:
                await asyncio.sleep(0.005)
            else:
                return


async def test_a_redis_that_hangs_is_left_alone_and_found_again(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with linked(peer_settings(own_redis, timeout=0.02, failures=3)) as link:
        await works(link)
        own_redis.hang()
        caplog.clear()
        failed = link.failures["late"]
        while not link.open:
            with pytest.raises(Away):
                await link.ask("PING")
        assert link.failures["late"] - failed == 3
        for _ in range(100):
            with pytest.raises(Away):
                await link.ask("PING")
        assert link.failures["resting"] >= 100
        assert link.later("SET", "x", b"y", size=1) is None
        own_redis.go_on()
        await works(link)
        assert "left alone" in caplog.text
        assert "answers again" in caplog.text


async def test_a_question_that_was_given_up_is_not_answered_to_the_next_one(own_redis: RedisServer) -> None:
    async with linked(peer_settings(own_redis, timeout=0.05, failures=10_000)) as link:
        await works(link)
        own_redis.hang()
        with pytest.raises(Away):
            await link.ask("ECHO", b"the first")
        own_redis.go_on()
        for number in range(50):
            try:
                assert await link.ask("ECHO", b"%d" % number) == b"%d" % number
            except Away:
                continue


async def test_a_killed_redis_is_left_alone_and_found_again(own_redis: RedisServer) -> None:
    async with linked(peer_settings(own_redis)) as link:
        for _ in range(2):
            await works(link)
            own_redis.kill()
            while not link.open:
                with pytest.raises(Away):
                    await link.ask("PING")
            own_redis.start()
        await works(link)


async def test_a_redis_that_is_not_there_yet_is_found_when_it_comes(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with linked(peer_settings(own_redis)) as link:
        assert link.open
        own_redis.start()
        await works(link)


async def test_an_answer_that_is_an_error_opens_no_breaker(redis_server: RedisServer) -> None:
    async with linked(peer_settings(redis_server, failures=1)) as link:
        await link.ask("SET", "x", b"y")
        for _ in range(5):
            with pytest.raises(Away):
                await link.ask("LPUSH", "x", b"y")
        assert not link.open
        assert link.failures["refused"] == 5
        assert await link.ask("GET", "x") == b"y"


async def test_questions_of_one_moment_are_all_answered_with_their_own_answer(
    redis_server: RedisServer,
) -> None:
    async with linked(peer_settings(redis_server)) as link:
        answers = await asyncio.gather(*(link.ask("ECHO", b"%d" % number) for number in range(500)))
        assert answers == [b"%d" % number for number in range(500)]


async def test_who_leaves_disturbs_nobody(redis_server: RedisServer) -> None:
    async with linked(peer_settings(redis_server)) as link:
        asked = [asyncio.ensure_future(link.ask("ECHO", b"%d" % number)) for number in range(20)]
        await asyncio.sleep(0)
        for leaver in asked[::2]:
            leaver.cancel()
        stayed = await asyncio.gather(*asked[1::2])
        assert stayed == [b"%d" % number for number in range(1, 20, 2)]


async def test_the_password_is_in_no_log(caplog: pytest.LogCaptureFixture, redis_server: RedisServer) -> None:
    caplog.set_level(logging.DEBUG)
    for port in (redis_server.port, free_port()):
        link = PeerLink(RedisSettings(url=SecretStr(f"redis://:hunter2@127.0.0.1:{port}/0")))
        await link.start()
        assert link.open
        await link.close()
    assert "left alone" in caplog.text
    assert "hunter2" not in caplog.text
