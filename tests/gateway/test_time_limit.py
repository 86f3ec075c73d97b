"""A limit ends its own block and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from nonet.gateway.core.time_limit import TimeLimit


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    limit = TimeLimit(0.01)
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    assert limit.passed
    assert cancelling() == 0
    await asyncio.sleep(0)  # the task goes on undisturbed


async def test_a_block_in_time_leaves_no_timer_behind() -> None:
    limit = TimeLimit(0.01)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    assert not limit.passed
    assert cancelling() == 0


async def test_errors_of_the_block_pass() -> None:
    with pytest.raises(KeyError), TimeLimit(60.0):
        raise KeyError
    with pytest.raises(TimeoutError), TimeLimit(60.0) as limit:
        raise TimeoutError
    assert not limit.passed


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with TimeLimit(60.0):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_wins_over_the_limit() -> None:
    inside, let_go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        with TimeLimit(0.01) as limit:
            inside.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert limit.passed
                let_go.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await let_go.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_outer_of_two_limits_ends_the_outer_block() -> None:
    outer, inner = TimeLimit(0.01), TimeLimit(60.0)
    with pytest.raises(TimeoutError), outer, inner:
        await asyncio.Event().wait()
    assert (outer.passed, inner.passed) == (True, False)
    assert cancelling() == 0
