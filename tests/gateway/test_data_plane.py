"""The data plane over real lanes: isolation, cache, single-flight, deadlines, cancellation, draining."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import misbehaving as bad
import numpy as np
import pytest

from nonet.gateway.cache import MemoryStore, ResponseCache
from nonet.gateway.cache.memory import MemoryLimits
from nonet.gateway.core import DataPlane, PlanePolicy
from nonet.gateway.executor import EmbeddedDevice
from nonet.gateway.metrics import Metrics
from nonet.gateway.scheduler import SchedulerPolicy
from nonet.gateway.stats import BatchRecord, RequestRecord
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.errors import (
    DeadlineExceeded,
    DeadlineUnattainable,
    Internal,
    InvalidArgument,
    ModelOutputInvalid,
    NotFound,
    Unavailable,
)
from nonet.runtime.requests import InferResponse, RequestedOutput


class Recorder:
    """Keeps every fact it is told."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.batches: list[BatchRecord] = []
        self.models: list[tuple[str, str, bool]] = []

    def on_request(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def on_batch(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def on_queue_depth(self, model: str, version: str, requests: int) -> None:
        assert requests >= 0

    def on_model(self, model: str, version: str, *, present: bool) -> None:
        self.models.append((model, version, present))


@asynccontextmanager
async def serving(
    *servables: bad.DoublingServable, lanes: int = 1, cached: bool = True, calibrate: bool = False
) -> AsyncIterator[tuple[DataPlane, Recorder]]:
    catalog, clock = Catalog(), MonotonicClock()
    if calibrate:
        for servable in servables:
            catalog.publish(servable)
    cache = ResponseCache(MemoryStore(MemoryLimits(), clock)) if cached else None
    plane = DataPlane(
        catalog,
        [EmbeddedDevice(lanes)],
        clock=clock,
        scheduling=SchedulerPolicy(max_waiting_requests=200),
        policy=PlanePolicy(default_timeout=20.0),
        cache=cache,
    )
    recorder = Recorder()
    plane.add_observer(recorder)
    await plane.start()
    if not calibrate:
        # Published without the calibration that a start would do: the first request finds the model cold.
        plane._calibrator.stop()
        for servable in servables:
            catalog.publish(servable)
    try:
        yield plane, recorder
    finally:
        for servable in servables:
            servable.close()
        await plane.drain(5.0)
        await plane.stop()


def value_of(response: InferResponse) -> float:
    return float(response.outputs[0].data.reshape(-1)[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


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


async def test_replacing_a_version_under_load_fails_nobody_and_frees_the_old_one() -> None:
    old = bad.SlowServable(0.01)
    new = bad.DoublingServable(dataclasses.replace(bad.doubling_info(), digest="new"))
    async with serving(old, cached=False) as (plane, _):
        tasks = [asyncio.create_task(plane.infer(bad.doubling_request(float(i)))) for i in range(40)]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(plane.catalog.publish, new)
        tasks += [asyncio.create_task(plane.infer(bad.doubling_request(float(i)))) for i in range(40, 60)]
        answers = await asyncio.gather(*tasks)
        assert [value_of(answer) for answer in answers] == [2.0 * i for i in range(60)]
        assert old.executed_rows + new.executed_rows == 60
        assert new.executed_rows >= 20
        await until(old.closed.is_set)


async def test_retiring_a_version_waits_for_the_requests_that_use_it() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        running = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(hanging.entered.is_set)
        retiring = asyncio.create_task(asyncio.to_thread(plane.catalog.retire, "doubler", "1", 10.0))
        await until(lambda: plane.catalog.versions("doubler") == [])
        with pytest.raises(NotFound):
            await plane.infer(bad.doubling_request(2.0))
        assert not hanging.closed.is_set()
        hanging.release.set()
        assert value_of(await running) == 2.0
        assert await retiring is True
        assert hanging.closed.is_set()


async def test_draining_refuses_the_new_and_finishes_the_old() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        running = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(hanging.entered.is_set)
        draining = asyncio.create_task(plane.drain(10.0))
        await asyncio.sleep(0)
        assert not plane.ready()
        with pytest.raises(Unavailable) as caught:
            await plane.infer(bad.doubling_request(2.0))
        assert caught.value.code == "DRAINING"
        hanging.release.set()
        assert await draining is True
        assert value_of(await running) == 2.0


async def test_what_was_let_in_before_the_drain_is_served_within_it() -> None:
    async with serving(bad.DoublingServable()) as (plane, _):
        with plane.admit():
            draining = asyncio.create_task(plane.drain(10.0))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="draining"), plane.admit():
                pytest.fail("let in during the drain")
            assert not draining.done()
            assert value_of(await plane.infer(bad.doubling_request(3.0), admitted=True)) == 6.0
            assert not draining.done()
        assert await draining is True
        assert plane.in_flight == 0


async def test_an_upload_that_outlives_the_grace_is_refused_afterwards() -> None:
    async with serving(bad.DoublingServable()) as (plane, _):
        with plane.admit():
            assert await plane.drain(0.01) is False
            await plane.stop()
            with pytest.raises(Unavailable) as caught:
                await plane.infer(bad.doubling_request(3.0), admitted=True)
            assert caught.value.code == "SHUTTING_DOWN"


async def test_a_version_that_left_is_forgotten_once_its_last_request_has_been_told() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, recorder):
        metrics = Metrics()
        plane.add_observer(metrics)
        running = asyncio.create_task(plane.infer(bad.doubling_request(1.0)))
        await until(hanging.entered.is_set)
        retiring = asyncio.create_task(asyncio.to_thread(plane.catalog.retire, "doubler", "1"))
        await until(lambda: plane.catalog.empty)
        assert ("doubler", "1", False) not in recorder.models
        hanging.release.set()
        assert value_of(await running) == 2.0
        assert await retiring is True
        await until(lambda: ("doubler", "1", False) in recorder.models)
        assert ("doubler", "1") not in metrics.models
        assert plane._statistics.of("doubler", "1").success.count == 0
        assert all(
            ("doubler", "1") not in state.latency for state in plane._dispatcher.scheduler.devices.values()
        )


async def test_a_version_that_is_replaced_keeps_its_counts() -> None:
    async with serving(bad.DoublingServable()) as (plane, recorder):
        await plane.infer(bad.doubling_request(1.0))
        again = bad.DoublingServable()
        await asyncio.to_thread(plane.catalog.publish, again)
        await asyncio.sleep(0)
        assert all(present for _, _, present in recorder.models)
        assert plane.statistics("doubler")[0].success.count == 1


@pytest.mark.parametrize(
    ("given", "measured"),
    [({"1": 0.25, "8": 0.5}, False), ({1: 0.25, 8: 0.5}, False), ({"8": 0.5}, True), ({"1": "x"}, True)],
)
async def test_a_profile_that_came_with_a_network_saves_measuring_it(
    given: dict[object, object], measured: bool
) -> None:
    servable = bad.DoublingServable(bad.doubling_info(details={"measured_latencies": given}))
    async with serving(servable, calibrate=True) as (plane, _):
        await until(lambda: ("doubler", "1") in plane._dispatcher.scheduler.devices["cpu"].latency)
        assert bool(servable.executions) is measured
        model = plane._dispatcher.scheduler.devices["cpu"].latency["doubler", "1"]
        if not measured:
            assert (model.predict(1, 0.0), model.predict(8, 0.0)) == (0.25, 0.5)


async def test_unknown_models_and_versions_are_told_apart_and_never_named_in_records() -> None:
    async with serving(bad.DoublingServable()) as (plane, recorder):
        with pytest.raises(NotFound, match="unknown model"):
            await plane.infer(bad.doubling_request(1.0, model="made-up"))
        with pytest.raises(NotFound, match="versions: 1"):
            await plane.infer(bad.doubling_request(1.0, version="9"))
        assert recorder.requests[0].model == ""


async def test_rows_of_any_mix_of_requests_come_back_to_their_owners() -> None:
    servable = bad.SlowServable(0.002)
    generator = np.random.default_rng(5)
    async with serving(servable, lanes=2, cached=False) as (plane, _):
        sizes = generator.integers(1, 9, size=120).tolist()
        requests = [bad.doubling_request(float(i), rows=rows) for i, rows in enumerate(sizes)]
        answers = await asyncio.gather(*(plane.infer(request) for request in requests))
        for i, (rows, answer) in enumerate(zip(sizes, answers, strict=True)):
            assert answer.outputs[0].shape == (rows, 4)
            assert (answer.outputs[0].data == 2.0 * i).all()
        assert max(servable.executions) <= 8
        assert sum(servable.executions) == sum(sizes)
