"""Questions to other models belong to the request that they are for: its time, its caller, its end."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from nonet.runtime.composition import Ask, Composition
from nonet.runtime.errors import DeadlineExceeded, Internal, InvalidArgument, NotFound
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until, value_of

OUTER = bad.doubling_info("outer", task="outer", cacheable=False)


async def _doubled_first(request: InferRequest, info: ModelInfo, ask: Ask) -> InferRequest:
    told = await ask(request.inputs, model=str(request.parameters.get("of", "doubler")))
    assert told.info.name == told.response.model
    return dataclasses.replace(request, inputs=(Tensor.of("x", told.response.output("y").data),))


ASKING = {"outer": Composition(asks=(), complete=_doubled_first)}


def outer(value: float = 1.0, **changes: object) -> InferRequest:
    return bad.doubling_request(value, model="outer", **changes)


async def test_the_request_is_answered_with_what_the_other_model_said() -> None:
    models = bad.DoublingServable(), bad.DoublingServable(OUTER)
    async with serving(*models, lanes=2, compositions=ASKING) as (plane, recorder):
        response = await plane.infer(outer(3.0, id="mine", tenant="them", priority=0))
        assert (value_of(response), response.id) == (12.0, "mine")
        assert [(record.model, record.ok) for record in recorder.requests] == [
            ("doubler", True),
            ("outer", True),
        ]
        assert plane.in_flight == 0
        # What was asked for one tenant is not found for another, and is for its own.
        await plane.infer(outer(3.0, tenant="others"))
        await plane.infer(outer(3.0, tenant="them"))
        assert [record.cache for record in recorder.requests if record.model == "doubler"] == [
            "miss",
            "miss",
            "hit",
        ]


async def test_equal_questions_of_different_requests_are_one_execution() -> None:
    hanging, asking = bad.HangingServable(), bad.DoublingServable(OUTER)
    async with serving(hanging, asking, lanes=2, compositions=ASKING) as (plane, _):
        waiting = [asyncio.create_task(plane.infer(outer(2.0))) for _ in range(5)]
        await until(hanging.entered.is_set)
        await asyncio.sleep(0)
        hanging.release.set()
        assert [value_of(each) for each in await asyncio.gather(*waiting)] == [8.0] * 5
        assert hanging.executions == [1]


async def test_a_caller_who_leaves_takes_the_questions_along() -> None:
    hanging, asking = bad.HangingServable(), bad.DoublingServable(OUTER)
    async with serving(hanging, asking, compositions=ASKING) as (plane, recorder):
        blocking = asyncio.create_task(plane.infer(bad.doubling_request(0.5)))
        await until(hanging.entered.is_set)
        leaving = asyncio.create_task(plane.infer(outer(1.0)))
        await until(lambda: plane.queue_depths() == {("doubler", "1"): 1})
        leaving.cancel()
        await asyncio.wait({leaving})
        assert plane.queue_depths() == {}
        hanging.release.set()
        await blocking
        assert hanging.executions == [1]
        assert asking.executions == []
        codes = {(record.model, record.code) for record in recorder.requests if not record.ok}
        assert codes == {("doubler", "CLIENT_CLOSED"), ("outer", "CLIENT_CLOSED")}


async def test_the_deadline_is_one_for_all() -> None:
    hanging, asking = bad.HangingServable(), bad.DoublingServable(OUTER)
    async with serving(hanging, asking, compositions=ASKING) as (plane, _):
        with pytest.raises(DeadlineExceeded):
            await plane.infer(outer(1.0, deadline=plane.clock.now() + 0.05))
        hanging.release.set()
        assert asking.executions == []


async def test_failures_of_the_other_model_are_the_requests() -> None:
    refusing, asking = bad.DoublingServable(), bad.DoublingServable(OUTER)
    async with serving(refusing, asking, compositions=ASKING) as (plane, _):
        with pytest.raises(NotFound, match="nobody"):
            await plane.infer(outer(parameters={"of": "nobody"}))
        with pytest.raises(Internal, match="outer > outer"):
            await plane.infer(outer(parameters={"of": "outer"}))
        with pytest.raises(InvalidArgument):
            await plane.infer(dataclasses.replace(outer(), inputs=()))
        assert refusing.executions == asking.executions == []
        assert plane.in_flight == 0


async def test_only_tasks_that_are_named_are_asked() -> None:
    async def complete(request: InferRequest, info: ModelInfo, ask: Ask) -> InferRequest:
        await ask(request.inputs, task="other", model="auto")
        return request

    async with serving(
        bad.DoublingServable(OUTER), compositions={"outer": Composition(("named",), complete)}
    ) as (plane, _):
        with pytest.raises(Internal, match="does not name the task other"):
            await plane.infer(outer())
