"""What was sent is out of memory as soon as it is answered, not when the garbage collector comes by."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from nonet.runtime.errors import ServingError
from tests.support import misbehaving_servables as bad
from tests.support.data_plane_harness import serving, until


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Cycles stay where they are for the time of a test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("fields", [{}, {"deadline": 0.0}], ids=["answered", "too late"])
async def test_a_request_is_gone_with_its_answer(fields: dict[str, float], cached: bool) -> None:
    async with serving(bad.DoublingServable(), cached=cached) as (plane, _):
        request = bad.doubling_request(**fields)
        sent = weakref.ref(request.inputs[0].data)
        with contextlib.suppress(ServingError):
            await plane.infer(request)
        del request
        await asyncio.sleep(0)
        assert sent() is None


async def test_a_request_whose_caller_has_left_is_gone() -> None:
    hanging = bad.HangingServable()
    async with serving(hanging) as (plane, _):
        first = asyncio.create_task(plane.infer(bad.doubling_request(0.5)))
        await until(hanging.entered.is_set)
        request = bad.doubling_request(1.0)
        sent = weakref.ref(request.inputs[0].data)
        second = asyncio.create_task(plane.infer(request))
        await until(lambda: plane.queue_depths() == {("doubler", "1"): 1})
        second.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await second
        del request, second
        await asyncio.sleep(0)
        hanging.release.set()
        await first
        assert sent() is None
