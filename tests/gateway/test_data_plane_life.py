"""The data plane while versions come and go and the server leaves: nobody fails, nothing leaks."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from nonet.gateway.metrics.counters import Metrics
from nonet.runtime.errors import (
    NotFound,
    Unavailable,
)
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until, value_of


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
