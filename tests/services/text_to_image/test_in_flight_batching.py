"""Requests join and leave at any step, so a short one never waits for a long one; counted in steps."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from nonet.gateway.core.data_plane import DataPlane
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.services.text_to_image.derive import derive
from nonet.services.text_to_image.row_plans import request_cost
from tests.support.counted_network import CountedNetwork, asked, files, run
from tests.support.data_plane_harness import serving, until

COSTS: Any = {"text_to_image": request_cost}


def service(network: CountedNetwork) -> Any:
    (derived,) = derive(network)
    derived.warm_up()
    network.batches.clear()
    return derived


async def infer(plane: DataPlane, *prompts: str, **columns: Any) -> InferResponse:
    """With a deadline that a slow machine meets, too."""
    request = dataclasses.replace(asked(*prompts, **columns), deadline=plane.clock.now() + 500.0)
    return await plane.infer(request)


async def late(plane: DataPlane, network: CountedNetwork, steps: int) -> int:
    """How many executions there are from the submit of a request of so many steps to its answer."""
    before = len(network.batches)
    await infer(plane, "the car", seed=1, steps=steps)
    return len(network.batches) - before


async def test_a_late_short_request_never_waits_for_a_long_one() -> None:
    network = CountedNetwork()
    async with serving(service(network), cached=False, costs=COSTS) as (plane, _):
        long = asyncio.create_task(infer(plane, *["a cat"] * 4, seed=9, steps=150))
        await until(lambda: len(network.batches) >= 5)
        # Its own two steps, the one that was running, and one for who was faster at the turn.
        assert await late(plane, network, 2) <= 4
        assert not long.done()
        joined = [feeds for feeds in network.batches if len(set(feeds["time"].tolist())) > 1]
        assert joined
        answer = await long
    (alone,) = run(service(CountedNetwork()), asked(*["a cat"] * 4, seed=9, steps=150))
    assert files(answer) == files(alone)


async def test_when_batches_are_full_a_late_short_request_still_takes_its_turns() -> None:
    async with serving(service(CountedNetwork()), cached=False, costs=COSTS) as (plane, recorder):
        # The service takes ten pictures at once, so each of these fills a batch.
        longs = [asyncio.create_task(infer(plane, *["a cat"] * 10, seed=k, steps=60)) for k in range(3)]
        await until(lambda: len(recorder.batches) >= 6)
        before = len(recorder.batches)
        await infer(plane, "the car", seed=1, steps=2)
        # Each of its steps waits for at most a step of each of the three.
        assert len(recorder.batches) - before <= 2 * 4 + 2
        assert not any(each.done() for each in longs)
        for each in longs:
            each.cancel()
        await asyncio.gather(*longs, return_exceptions=True)


async def test_who_leaves_ends_the_work_within_a_step() -> None:
    network = CountedNetwork()
    async with serving(service(network), cached=False, costs=COSTS) as (plane, _):
        task = asyncio.create_task(infer(plane, "a cat", seed=9, steps=150))
        await until(lambda: len(network.batches) >= 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        taken = len(network.batches)
        await until(lambda: plane.queue_depths() == {})
        await infer(plane, "the car", seed=1, steps=3)
        assert len(network.batches) <= taken + 1 + 3


async def test_what_the_model_does_not_take_is_refused_before_it_waits() -> None:
    network = CountedNetwork()
    async with serving(service(network), cached=False, costs=COSTS) as (plane, recorder):
        with pytest.raises(InvalidArgument) as refused:
            await infer(plane, "a cat", size="9x9")
        assert refused.value.param == "size"
        assert recorder.batches == []


async def test_auto_prefers_a_member_that_takes_the_request_and_is_in_time() -> None:
    members: list[Any] = []
    for name, quality, steps in (("full", 0.9, 100), ("quick", 0.5, 2)):
        network = CountedNetwork(steps=steps, sizes=["64x64"] if name == "full" else ["64x64", "64x32"])
        info = network.info
        for field, value in (("name", name), ("quality", {"top1": quality})):
            object.__setattr__(info, field, value)
        members.append(service(network))
    async with serving(*members, cached=False, costs=COSTS, calibrate=True) as (plane, _):
        now = plane.clock.now()

        def chosen(deadline: float | None, **fields: Any) -> str:
            request = InferRequest("", asked("a cat", **fields).inputs, deadline=deadline)
            return plane.choose("text_to_image", "auto", request).network

        assert chosen(now + 500.0) == "full"
        step = plane._dispatcher.scheduler.estimate(("generate.full", "3"), 1.0, 1, now + 500, now) - now
        assert chosen(now + 40 * step) == "quick"
        assert chosen(now + 500.0, size="64x32") == "quick"
        assert chosen(None, size="9x9") == "full"  # nobody takes it: the best says so


def test_the_answers_of_a_service_are_what_it_declares() -> None:
    one = service(CountedNetwork())
    (answer,) = run(one, asked("a cat", steps=1))
    assert isinstance(answer, InferResponse)
    assert [tensor.name for tensor in answer.outputs] == [spec.name for spec in one.info.outputs]
