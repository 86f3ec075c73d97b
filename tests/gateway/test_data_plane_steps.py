"""Models that work in steps, over real lanes: partial answers, company, leaving, cost, early refusals."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from nonet.runtime.errors import DeadlineUnattainable, ServingError, Unavailable
from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until, value_of


async def test_a_stream_gives_the_partial_answers_in_order_and_then_the_final_one() -> None:
    async with serving(bad.SteppingServable(0.02)) as (plane, recorder):
        answers = [answer async for answer in plane.stream(bad.doubling_request(4.0, id="mine"))]
        assert [value_of(answer) for answer in answers] == [1.0, 2.0, 3.0, 8.0]
        assert [answer.final for answer in answers] == [False, False, False, True]
        assert {answer.id for answer in answers} == {"mine"}
        assert sum(taken for taken, _ in recorder.steps) == 4
        assert recorder.steps[-1][1] == 0
        again = [answer async for answer in plane.stream(bad.doubling_request(4.0))]
        assert [(value_of(answer), answer.cache) for answer in again] == [(8.0, "hit")]
        assert plane.in_flight == 0


async def test_infer_waits_for_the_final_answer() -> None:
    async with serving(bad.SteppingServable(), cached=False) as (plane, _):
        response = await plane.infer(bad.doubling_request(5.0))
        assert (value_of(response), response.final) == (10.0, True)


async def test_a_long_request_holds_a_short_one_up_by_no_more_than_a_step() -> None:
    alone = bad.doubling_info(max_batch_size=1, decoupled=True)
    servable = bad.SteppingServable(0.01, info=alone)
    async with serving(servable, cached=False) as (plane, _):
        long = asyncio.create_task(plane.infer(bad.doubling_request(40.0)))
        await until(lambda: len(servable.steps) >= 3)
        before = len(servable.steps)
        await plane.infer(bad.doubling_request(1.0))
        assert servable.steps.index([1.0]) <= before + 2
        assert value_of(await long) == 80.0


async def test_requests_at_different_steps_share_batches() -> None:
    servable = bad.SteppingServable(0.02)
    async with serving(servable, cached=False) as (plane, _):
        first = asyncio.create_task(plane.infer(bad.doubling_request(10.0)))
        await until(lambda: len(servable.steps) >= 2)
        assert value_of(await plane.infer(bad.doubling_request(3.0))) == 6.0
        assert value_of(await first) == 20.0
        assert any(sorted(batch) == [3.0, 10.0] for batch in servable.steps)


@pytest.mark.parametrize("cached", [True, False])
async def test_closing_a_stream_ends_the_work_within_a_step(cached: bool) -> None:
    servable = bad.SteppingServable(0.02)
    async with serving(servable, cached=cached) as (plane, _):
        async with contextlib.aclosing(plane.stream(bad.doubling_request(500.0))) as answers:
            await anext(answers)
        taken = len(servable.steps)
        await asyncio.sleep(0.1)
        assert len(servable.steps) <= taken + 1
        assert plane.in_flight == 0
        assert plane.queue_depths() == {}


async def test_what_is_given_up_between_two_steps_is_not_said_to_be_dropped_before_any_work() -> None:
    async with serving(bad.SteppingServable(0.02), cached=False) as (plane, _):
        with pytest.raises(DeadlineUnattainable, match=r"given up after \d+ steps"):
            await plane.infer(bad.doubling_request(300.0, deadline=plane.clock.now() + 3.0))


async def test_who_joins_between_two_steps_is_not_held_to_the_first_callers_deadline() -> None:
    servable = bad.SteppingServable(0.02)
    async with serving(servable) as (plane, _):
        hasty = bad.doubling_request(30.0, deadline=plane.clock.now() + 0.3)
        first = asyncio.create_task(plane.infer(hasty))
        await until(lambda: len(servable.executions) >= 1)
        values = [value_of(answer) async for answer in plane.stream(bad.doubling_request(30.0))]
        with pytest.raises(ServingError):
            await first
        assert values == sorted(values)
        assert len(servable.steps) == 30


@pytest.mark.parametrize(("width", "kept"), [(4, 48), (1 << 18, 4)])
async def test_a_reader_who_is_slow_gets_the_newest_large_answers_and_all_small_ones(
    width: int, kept: int
) -> None:
    servable = bad.SteppingServable(info=bad.doubling_info(width=width, decoupled=True))
    async with serving(servable) as (plane, _):
        answers = plane.stream(bad.doubling_request(50.0, width=width))
        first = await anext(answers)
        await until(lambda: len(servable.steps) == 50)
        await until(lambda: plane.queue_depths() == {} and plane.utilisation() == {"cpu": 0.0})
        rest = [answer async for answer in answers]
        assert not first.final
        assert len(rest) == kept + 1
        assert [answer.final for answer in rest] == [False] * (len(rest) - 1) + [True]
        assert value_of(rest[-2]) == 49.0


class _IllFormed(bad.SteppingServable):
    """Gives something that is no answer as the partial answer to poison."""

    def _step(self, request: InferRequest, rows: int) -> Outcome:
        if bad.is_poison(request):
            return Continued(1, cast(Any, "no answer"))
        return super()._step(request, rows)


@pytest.mark.parametrize("cached", [True, False])
async def test_a_partial_answer_that_is_none_fails_its_request_and_no_other(cached: bool) -> None:
    async with serving(_IllFormed(0.02), cached=cached) as (plane, _):
        async with asyncio.timeout(10.0):
            values = (3.0, bad.POISON, 4.0)
            asked = [plane.infer(bad.doubling_request(value)) for value in values]
            first, poison, last = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(poison, ServingError)
        assert poison.code == "MODEL_FAILED"
        assert [value_of(cast(InferResponse, answer)) for answer in (first, last)] == [6.0, 8.0]
        # Nothing is left of it: the version can go.
        assert await asyncio.to_thread(plane.catalog.retire, "doubler", "1", 5.0)


@pytest.mark.parametrize(("tell", "late"), [(60.0, True), (1.0, False), (float("nan"), False)])
async def test_the_cost_of_a_request_decides_whether_it_can_be_in_time(tell: float, late: bool) -> None:
    servable = bad.SlowServable(0.02, info=bad.doubling_info(task="toy", max_batch_size=1))
    async with serving(servable, calibrate=True, costs={"toy": lambda request, info: tell}) as (plane, _):
        request = bad.doubling_request(deadline=plane.clock.now() + 0.5)
        if late:
            with pytest.raises(DeadlineUnattainable):
                await plane.infer(request)
        else:
            assert value_of(await plane.infer(request)) == 2.0


async def test_admission_refuses_by_the_headers_what_cannot_be_served() -> None:
    servable = bad.HangingServable()
    async with serving(servable, waiting=1, cached=False) as (plane, _):
        running = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(servable.entered.is_set)
        waiting = asyncio.create_task(plane.infer(bad.doubling_request(2.0)))
        await until(lambda: plane.queue_depths() == {("doubler", "1"): 1})
        with pytest.raises(Unavailable) as caught:
            plane.admit(model="doubler")
        assert caught.value.code == "QUEUE_FULL"
        with plane.admit(model="unknown"):
            pass
        servable.release.set()
        await asyncio.gather(running, waiting)


async def test_admission_refuses_a_deadline_that_nothing_can_meet() -> None:
    async with serving(bad.SlowServable(0.2), calibrate=True) as (plane, _):
        with pytest.raises(DeadlineUnattainable):
            plane.admit(model="doubler", deadline=plane.clock.now() + 0.05)
        with plane.admit(model="doubler", deadline=plane.clock.now() + 5.0):
            pass
