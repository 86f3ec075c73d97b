"""The loop that four parts of the jobs look around in: woken, resting, failing, stopped in either way."""

from __future__ import annotations

import asyncio
import logging

import pytest

from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.errors import Unavailable


class Looks:
    """Counts the looks of a loop, each of which does what the test says."""

    def __init__(self, *outcomes: BaseException | float | None, trouble: float | None = None) -> None:
        self.count = 0
        self.loop = WakeLoop("testing", self._look, trouble)
        self._outcomes = list(outcomes)
        self._looked = asyncio.Condition()

    async def _look(self) -> float | None:
        async with self._looked:
            self.count += 1
            self._looked.notify_all()
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(30), self._looked:
            await self._looked.wait_for(lambda: self.count >= count)


async def test_it_rests_as_long_as_a_look_says_or_until_it_is_woken() -> None:
    looks = Looks(0.0, 0.0, None)
    looks.loop.start(None)
    await asyncio.sleep(0)
    assert looks.count == 0
    looks.loop.wake()
    await looks.reach(3)
    looks.loop.wake()
    await looks.reach(4)
    await looks.loop.cancel()


async def test_a_wake_during_a_look_is_not_lost() -> None:
    begun, go_on, looked = asyncio.Event(), asyncio.Event(), []

    async def look() -> None:
        looked.append(True)
        begun.set()
        await go_on.wait()

    loop = WakeLoop("testing", look)
    loop.start()
    await begun.wait()
    loop.wake()
    begun.clear()
    go_on.set()
    async with asyncio.timeout(30):
        await begun.wait()
    assert len(looked) == 2
    await loop.cancel()


async def test_a_failure_ends_nothing_and_only_what_nobody_foresaw_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    looks = Looks(Unavailable("the store is away"), RuntimeError("a defect"), trouble=0.0)
    looks.loop.start()
    await looks.reach(3)
    await looks.loop.cancel()
    (record,) = caplog.records
    assert record.message == "testing failed"
    assert "a defect" in caplog.text


async def test_finishing_lets_the_look_under_way_end() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    async def look() -> float:
        begun.set()
        await go_on.wait()
        done.append(True)
        return 0.0

    loop = WakeLoop("testing", look)
    loop.start()
    await begun.wait()
    finishing = asyncio.create_task(loop.finish())
    await asyncio.sleep(0)
    assert not finishing.done()
    go_on.set()
    async with asyncio.timeout(30):
        await finishing
    assert done == [True]


async def test_neither_way_of_stopping_needs_a_start() -> None:
    for stop in (WakeLoop.finish, WakeLoop.cancel):
        await stop(Looks().loop)


async def test_what_is_spawned_wakes_the_loop_at_its_end_and_its_failure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = Looks()
    looks.loop.start(None)

    async def fail() -> None:
        raise RuntimeError("a defect")

    looks.loop.spawn(fail())
    await looks.loop.wait(30)
    await looks.reach(1)
    assert not looks.loop.tasks
    assert "a defect" in caplog.text
    await looks.loop.cancel()
