"""The data plane over real lanes: isolation, cache, single-flight, deadlines, cancellation, draining."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from nonet.runtime.errors import (
    DeadlineExceeded,
    DeadlineUnattainable,
    InsufficientStorage,
    Internal,
    InvalidArgument,
    ModelOutputInvalid,
)
from nonet.runtime.requests import InferResponse, RequestedOutput
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until, value_of


async def test_answers_and_says_how_it_went() -> None:
    async with serving(bad.DoublingServable(), calibrate=True) as (plane, recorder):
        response = await plane.infer(bad.doubling_request(3.0, id="mine"))
        assert value_of(response) == 6.0
        assert (response.id, response.device, response.batch_size, response.cache) == (
            "mine",
            "cpu",
            1,
            "miss",
        )
        again = await plane.infer(bad.doubling_request(3.0, id="other"))
        assert (again.id, again.cache, value_of(again)) == ("other", "hit", 6.0)
        assert [record.cache for record in recorder.requests] == ["miss", "hit"]
        totals = plane.statistics("doubler")[0]
        assert (totals.success.count, totals.inference_count, totals.execution_count) == (2, 1, 1)


async def test_requests_that_wait_together_run_together_and_answer_as_alone() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, recorder):
        first = asyncio.create_task(plane.infer(bad.doubling_request(0.5)))
        await until(hanging.entered.is_set)
        rest = [asyncio.create_task(plane.infer(bad.doubling_request(float(i)))) for i in range(1, 9)]
        await until(lambda: plane.queue_depths() == {("doubler", "1"): 8})
        hanging.release.set()
        answers = await asyncio.gather(*rest)
        await first
        assert [value_of(answer) for answer in answers] == [2.0 * i for i in range(1, 9)]
        assert hanging.executions == [1, 8]
        assert {answer.batch_size for answer in answers} == {8}
        assert sum(batch.rows for batch in recorder.batches) == 9


@pytest.mark.parametrize(
    ("servable", "error"),
    [
        (bad.ItemFailingServable(), InvalidArgument),
        (bad.BatchPoisonedServable(), Internal),
        (bad.NanServable(only_poison=True), ModelOutputInvalid),
    ],
    ids=["a value the model refuses", "a backend that fails the whole batch", "NaN"],
)
async def test_one_bad_item_fails_alone(servable: bad.DoublingServable, error: type[Exception]) -> None:
    async with serving(servable, cached=False) as (plane, recorder):
        values = [1.0, 2.0, bad.POISON, 3.0, 4.0, 5.0]
        outcomes = await asyncio.gather(
            *(plane.infer(bad.doubling_request(value)) for value in values), return_exceptions=True
        )
        for value, outcome in zip(values, outcomes, strict=True):
            if value == bad.POISON:
                assert isinstance(outcome, error)
            else:
                assert isinstance(outcome, InferResponse)
                assert value_of(outcome) == 2 * value
        assert [record.ok for record in recorder.requests].count(False) == 1


async def test_a_batch_too_large_for_memory_is_halved_until_it_fits() -> None:
    servable = bad.OutOfMemoryServable(rows_that_fit=2)
    async with serving(servable, cached=False) as (plane, _):
        answers = await asyncio.gather(*(plane.infer(bad.doubling_request(float(i))) for i in range(8)))
        assert [value_of(answer) for answer in answers] == [2.0 * i for i in range(8)]


async def test_what_does_not_fit_in_memory_alone_says_so() -> None:
    async with serving(bad.OutOfMemoryServable(rows_that_fit=0), cached=False) as (plane, _):
        with pytest.raises(InsufficientStorage) as caught:
            await plane.infer(bad.doubling_request(1.0))
        assert caught.value.code == "OUT_OF_MEMORY"


@pytest.mark.parametrize("how", bad.GarbageServable.WAYS)
async def test_garbage_from_a_backend_is_an_error_and_the_next_model_still_works(how: str) -> None:
    healthy = bad.DoublingServable(bad.doubling_info("healthy"))
    async with serving(bad.GarbageServable(how), healthy) as (plane, _):
        with pytest.raises((Internal, ModelOutputInvalid)):
            await plane.infer(bad.doubling_request(1.0))
        assert value_of(await plane.infer(bad.doubling_request(1.0, model="healthy"))) == 2.0


async def test_a_failure_says_nothing_of_the_inside_and_is_not_cached() -> None:
    servable = bad.FailingServable(times=1)
    async with serving(servable) as (plane, _):
        with pytest.raises(Internal) as caught:
            await plane.infer(bad.doubling_request(1.0))
        assert "secret" not in caught.value.message
        assert value_of(await plane.infer(bad.doubling_request(1.0))) == 2.0


async def test_a_hundred_equal_requests_execute_once() -> None:
    servable = bad.SlowServable(0.05)
    async with serving(servable, lanes=2) as (plane, recorder):
        answers = await asyncio.gather(
            *(plane.infer(bad.doubling_request(7.0, id=str(i))) for i in range(100))
        )
        assert servable.executions == [1]
        assert [answer.id for answer in answers] == [str(i) for i in range(100)]
        caches = [record.cache for record in recorder.requests]
        assert (caches.count("miss"), caches.count("coalesced")) == (1, 99)


async def test_the_first_of_equal_requests_may_leave_and_the_others_get_the_answer() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        leader = asyncio.create_task(plane.infer(bad.doubling_request(2.0)))
        await until(hanging.entered.is_set)
        follower = asyncio.create_task(plane.infer(bad.doubling_request(2.0)))
        await asyncio.sleep(0.02)
        leader.cancel()
        await asyncio.sleep(0.02)
        hanging.release.set()
        answer = await follower
        assert (value_of(answer), answer.cache) == (4.0, "coalesced")
        assert hanging.executions == [1]


async def test_a_patient_follower_survives_the_deadline_of_the_one_it_joined() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        blocker = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(hanging.entered.is_set)
        now = plane.clock.now()
        hasty = asyncio.create_task(plane.infer(bad.doubling_request(2.0, deadline=now + 0.1)))
        await asyncio.sleep(0.02)
        patient = asyncio.create_task(plane.infer(bad.doubling_request(2.0, deadline=now + 15.0)))
        with pytest.raises(DeadlineExceeded):
            await hasty
        hanging.release.set()
        assert value_of(await patient) == 4.0
        await blocker


async def test_different_requests_never_share_a_cached_answer() -> None:
    async with serving(bad.DoublingServable(), bad.DoublingServable(bad.doubling_info(version="2"))) as (
        plane,
        recorder,
    ):
        base = bad.doubling_request(1.0)
        variants = [
            base,
            dataclasses.replace(base, version="1"),
            dataclasses.replace(base, parameters={"x": 1}),
            dataclasses.replace(base, tenant="other"),
            dataclasses.replace(base, outputs=(RequestedOutput("y", classification=1),)),
            bad.doubling_request(1.0, rows=2),
        ]
        for variant in variants:
            await plane.infer(variant)
        assert {record.cache for record in recorder.requests} == {"miss"}
        assert len(recorder.batches) == len(variants)


async def test_no_store_bypasses_and_no_cache_refreshes() -> None:
    servable = bad.DoublingServable()
    async with serving(servable) as (plane, _):
        private = bad.doubling_request(1.0, use_cache=False, store_in_cache=False)
        assert (await plane.infer(private)).cache == "bypass"
        assert (await plane.infer(bad.doubling_request(1.0))).cache == "miss"
        assert (await plane.infer(bad.doubling_request(1.0, use_cache=False))).cache == "bypass"
        assert (await plane.infer(bad.doubling_request(1.0))).cache == "hit"
        assert servable.executions == [1, 1, 1]


async def test_a_deadline_in_the_past_costs_nothing() -> None:
    servable = bad.DoublingServable()
    async with serving(servable) as (plane, _):
        with pytest.raises(DeadlineExceeded):
            await plane.infer(bad.doubling_request(1.0, deadline=plane.clock.now() - 0.001))
        assert servable.executions == []


async def test_what_cannot_be_done_in_time_is_refused_at_once_and_never_done() -> None:
    servable = bad.SlowServable(0.3)
    async with serving(servable, calibrate=True) as (plane, recorder):
        before = len(servable.executions)
        with pytest.raises(DeadlineUnattainable) as caught:
            await plane.infer(bad.doubling_request(1.0, deadline=plane.clock.now() + 0.1))
        assert caught.value.retry_after is not None
        assert len(servable.executions) == before
        assert recorder.requests[-1].deadline_met is False


async def test_the_caller_hears_at_the_deadline_even_if_the_backend_hangs() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        with pytest.raises(DeadlineExceeded):
            await plane.infer(bad.doubling_request(1.0, deadline=plane.clock.now() + 0.1))


@pytest.mark.parametrize("cached", [True, False])
async def test_a_caller_that_leaves_takes_its_queued_work_along(cached: bool) -> None:
    hanging = bad.HangingServable()
    async with serving(hanging, cached=cached) as (plane, recorder):
        blocker = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(hanging.entered.is_set)
        queued = [asyncio.create_task(plane.infer(bad.doubling_request(float(i)))) for i in range(2, 6)]
        await until(lambda: sum(plane.queue_depths().values()) == 4)
        for task in queued:
            task.cancel()
        await asyncio.wait(queued)
        await until(lambda: plane.queue_depths() == {})
        hanging.release.set()
        await blocker
        assert hanging.executions == [1]
        gone = [record for record in recorder.requests if record.code == "CLIENT_CLOSED"]
        assert [record.stage for record in gone] == ["queued"] * 4


async def test_a_caller_that_leaves_mid_batch_harms_no_peer() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging, cached=False) as (plane, recorder):
        pair = [asyncio.create_task(plane.infer(bad.doubling_request(float(i)))) for i in (1, 2)]
        await until(hanging.entered.is_set)
        pair[0].cancel()
        await asyncio.wait(pair[:1])
        hanging.release.set()
        assert value_of(await pair[1]) == 4.0
        assert recorder.requests[0].stage == "executing"
