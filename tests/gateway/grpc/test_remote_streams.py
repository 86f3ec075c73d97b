"""A decoupled model of another server, through the gateway: each answer passes, none twice, none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from nonet.gateway.cache import ResponseCache
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.executor import RemoteDevice
from nonet.gateway.settings.topology import RemoteService
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import MonotonicClock
from nonet.runtime.errors import ServingError
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import DataType, Tensor
from tests.support.foreign_server import MODEL, ForeignServer, foreign_server
from tests.support.grpc_server import Face, serving_grpc


@pytest.fixture
async def server() -> AsyncIterator[ForeignServer]:
    async with foreign_server() as started:
        yield started


@pytest.fixture
async def face(server: ForeignServer) -> AsyncIterator[Face]:
    """The gRPC face of a gateway whose only device is that server."""
    catalog = Catalog()
    device = RemoteDevice(RemoteService("foreign", server.address), catalog)
    async with serving_grpc(catalog=catalog, devices=[device]) as started:
        yield started


def asked(count: int, *, end: bool = False, identity: str = "") -> Any:
    request = message("inference.ModelInferRequest")(model_name=MODEL, id=identity)
    request.inputs.add(name="count", datatype="INT32", shape=[1])
    request.raw_input_contents.append(np.array([count], np.int32).tobytes())
    if end:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def numbers(reply: Any) -> list[int]:
    return [int(np.frombuffer(raw, np.int32)[0]) for raw in reply.infer_response.raw_output_contents]


def is_last(reply: Any) -> bool:
    return bool(reply.infer_response.parameters["triton_final_response"].bool_param)


async def exchange(face: Face, *requests: Any) -> list[Any]:
    call = face.stream()
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [reply async for reply in call]


async def test_a_burst_of_answers_passes_whole_and_without_an_empty_end(face: Face) -> None:
    replies = await exchange(face, asked(40, identity="a"))
    assert [numbers(reply) for reply in replies] == [[number] for number in range(40)]
    assert {reply.infer_response.id for reply in replies} == {"a"}
    assert not any(map(is_last, replies))


async def test_the_empty_end_comes_to_who_asked_for_it(face: Face) -> None:
    replies = await exchange(face, asked(2, end=True))
    assert [numbers(reply) for reply in replies] == [[0], [1], []]
    assert [is_last(reply) for reply in replies] == [False, False, True]


async def test_an_answer_is_handed_on_before_the_next_exists(face: Face, server: ForeignServer) -> None:
    server.pause.clear()
    call = face.stream()
    await call.write(asked(2))
    assert numbers(await call.read()) == [0]
    server.pause.set()
    assert numbers(await call.read()) == [1]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_one_who_wants_one_answer_gets_the_last(face: Face) -> None:
    reply = await face.call("ModelInfer", asked(5))
    assert np.frombuffer(reply.raw_output_contents[0], np.int32).tolist() == [4]
    assert "triton_final_response" not in reply.parameters


async def test_no_answer_at_all_is_a_failure(face: Face) -> None:
    (reply,) = await exchange(face, asked(0))
    assert "no answer" in reply.error_message


@pytest.mark.parametrize(("dies_after", "told"), [(2, [[0], [1], []]), (0, [[0], [1], [2]])])
async def test_what_was_told_is_not_told_again_when_the_server_dies(
    server: ForeignServer, dies_after: int, told: list[list[int]]
) -> None:
    """A request of which nothing was told is tried once more, with the replica."""
    async with foreign_server() as replica:
        catalog = Catalog()
        services = [RemoteService("foreign", each.address) for each in (server, replica)]
        devices = [RemoteDevice(each, catalog) for each in services]
        async with serving_grpc(catalog=catalog, devices=devices) as face:
            server.dies_after = dies_after
            replica.dies_after = dies_after or None
            replies = await exchange(face, asked(3))
    assert [numbers(reply) for reply in replies] == told
    assert ("went away" in replies[-1].error_message) is (dies_after > 0)


async def test_who_leaves_takes_the_work_at_the_server_along(face: Face, server: ForeignServer) -> None:
    server.pause.clear()
    call = face.stream()
    await call.write(asked(2))
    await call.read()
    call.cancel()
    async with asyncio.timeout(15):
        await server.cancelled.wait()


async def test_a_reader_who_is_slow_loses_nothing_that_is_small(server: ForeignServer) -> None:
    catalog = Catalog()
    device = RemoteDevice(RemoteService("foreign", server.address), catalog)
    plane = DataPlane(catalog, [device], clock=MonotonicClock(), cache=ResponseCache(None))
    await plane.start()
    request = InferRequest(MODEL, (Tensor("count", DataType.INT32, np.array([200], np.int32)),))
    seen: list[InferResponse] = []
    async for response in plane.stream(request):
        seen.append(response)
        await asyncio.sleep(0)
    assert [int(each.outputs[0].data[0]) for each in seen] == [*range(200), 199]
    assert [each.final for each in seen] == [False] * 200 + [True]
    assert seen[-1].repeats
    with pytest.raises(ServingError):
        await plane.infer(InferRequest(MODEL, ()))
    await plane.stop()


async def test_what_runs_elsewhere_is_predicted_as_one_execution(server: ForeignServer) -> None:
    catalog = Catalog()
    device = RemoteDevice(RemoteService("foreign", server.address), catalog)
    plane = DataPlane(catalog, [device], clock=MonotonicClock(), costs={"": lambda request, info: 50.0})
    await plane.start()
    server.pause.clear()
    answers = plane.stream(InferRequest(MODEL, (Tensor("count", DataType.INT32, np.array([2], np.int32)),)))
    await anext(answers)
    (batch,) = plane._dispatcher._running
    assert [(item.cost, item.left) for item in batch.items] == [(50.0, 1.0)]
    await answers.aclose()
    await plane.stop()
