"""Equal requests in flight: one execution, which outlives whoever leaves."""

from __future__ import annotations

import asyncio

import pytest

from nonet.gateway.cache import SingleFlight


class Work:
    """An execution that ends when told, and counts."""

    def __init__(self) -> None:
        self.started = self.cancelled = 0
        self.go = asyncio.Event()
        self.hurries: list[tuple[int, float]] = []

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "answer"

    def join(self, flights: SingleFlight[str], priority: int = 1) -> asyncio.Task[tuple[str, bool]]:
        return asyncio.create_task(
            flights.run(
                b"k", self, priority=priority, deadline=9.0, hurry=lambda *how: self.hurries.append(how)
            )
        )


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_hundred_equal_requests_are_one_execution() -> None:
    work, flights = Work(), SingleFlight[str]()
    tasks = [work.join(flights) for _ in range(100)]
    await settle()
    work.go.set()
    results = await asyncio.gather(*tasks)
    assert work.started == 1
    assert [answer for answer, _ in results] == ["answer"] * 100
    assert sum(joined for _, joined in results) == 99
    assert len(flights) == 0


async def test_the_one_that_started_it_may_leave() -> None:
    work, flights = Work(), SingleFlight[str]()
    leader = work.join(flights)
    await settle()
    follower = work.join(flights)
    await settle()
    leader.cancel()
    await settle()
    work.go.set()
    assert await follower == ("answer", True)
    assert (work.started, work.cancelled) == (1, 0)


async def test_when_all_have_left_the_work_is_called_off_and_a_newcomer_starts_anew() -> None:
    work, flights = Work(), SingleFlight[str]()
    tasks = [work.join(flights) for _ in range(3)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(flights) == 0
    newcomer = work.join(flights)
    await settle()
    work.go.set()
    assert await newcomer == ("answer", False)
    assert (work.started, work.cancelled) == (2, 1)


async def test_a_failure_reaches_everybody_and_is_not_remembered() -> None:
    flights = SingleFlight[str]()
    calls = 0

    async def fail() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise ValueError("no")

    def join() -> asyncio.Task[tuple[str, bool]]:
        return asyncio.create_task(flights.run(b"k", fail, priority=1, deadline=1.0, hurry=lambda *_: None))

    results = await asyncio.gather(join(), join(), return_exceptions=True)
    assert [str(result) for result in results] == ["no", "no"]
    assert calls == 1
    with pytest.raises(ValueError, match="no"):
        await join()
    assert calls == 2


async def test_those_who_join_say_how_urgent_they_are() -> None:
    work, flights = Work(), SingleFlight[str]()
    first = work.join(flights)
    await settle()
    second = work.join(flights, priority=0)
    await settle()
    work.go.set()
    await asyncio.gather(first, second)
    assert work.hurries == [(0, 9.0)]
