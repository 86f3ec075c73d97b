"""ModelStreamInfer: order, isolation, back-pressure, errors in Triton's two manners, and its ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from nonet.gateway.core.upload_budget import UploadBudget
from nonet.gateway.settings.grpc_settings import GrpcSettings
from nonet.gateway.settings.schema import AuthSettings
from tests.support import misbehaving_servables as bad
from tests.support.grpc_server import infer_request, values

Start = Callable[..., Any]
Code = grpc.StatusCode


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def exchange(call: Any, requests: list[Any]) -> list[Any]:
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [reply async for reply in call]


async def test_answers_come_in_the_order_of_the_requests(start_face: Start) -> None:
    slow = bad.SlowServable(0.03, info=bad.doubling_info("slow"))
    quick = bad.DoublingServable(bad.doubling_info("quick"))
    face = await start_face(slow, quick, lanes=2)
    requests = [infer_request(i, ("slow", "quick")[i % 2], str(i)) for i in range(12)]
    replies = await exchange(face.stream(), requests)
    assert [reply.infer_response.id for reply in replies] == [str(i) for i in range(12)]
    assert [values(reply.infer_response)[0] for reply in replies] == [2.0 * i for i in range(12)]
    assert all(reply.infer_response.parameters["triton_final_response"].bool_param for reply in replies)


async def test_a_bad_request_fails_alone_and_in_its_place(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    wrong = infer_request(1.0, identity="wrong")
    wrong.raw_input_contents[0] = b"abc"
    requests = [infer_request(1.0), infer_request(2.0, "absent", "lost"), wrong, infer_request(3.0)]
    replies = await exchange(face.stream(), requests)
    assert [bool(reply.error_message) for reply in replies] == [False, True, True, False]
    assert "absent" in replies[1].error_message
    assert replies[1].infer_response.id == "lost"
    assert replies[2].infer_response.id == "wrong"
    assert values(replies[3].infer_response) == [6.0] * 4


async def test_a_message_that_does_not_parse_fails_alone(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    call = face.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=type((await exchange(face.stream(), [infer_request()]))[0]).FromString,
    )(timeout=20)
    replies = await exchange(call, [b"\xff\xff\xff", infer_request(4.0).SerializeToString()])
    assert "ModelInferRequest" in replies[0].error_message
    assert values(replies[1].infer_response) == [8.0] * 4


async def test_a_defect_fails_one_request_and_says_nothing(
    start_face: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = await start_face(bad.DoublingServable())
    infer = face.plane.infer

    async def sometimes_broken(request: Any, **options: Any) -> Any:
        if request.id == "bug":
            raise RuntimeError("secret")
        return await infer(request, **options)

    monkeypatch.setattr(face.plane, "infer", sometimes_broken)
    replies = await exchange(face.stream(), [infer_request(identity="bug"), infer_request(2.0)])
    assert "internal error" in replies[0].error_message
    assert "secret" not in replies[0].error_message
    assert values(replies[1].infer_response) == [4.0] * 4


async def test_on_request_an_error_is_the_status_of_the_stream(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    call = face.stream(metadata=(("triton_grpc_error", "true"),))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await exchange(call, [infer_request(), infer_request(model="absent"), infer_request()])
    assert caught.value.code() is Code.NOT_FOUND
    assert dict(caught.value.trailing_metadata())["nonet-error-code"] == "MODEL_NOT_FOUND"


async def test_the_framing_parameter_of_clients_never_reaches_a_model(start_face: Start) -> None:
    servable = bad.DoublingServable()
    face = await start_face(servable)
    plain, framed = infer_request(5.0), infer_request(5.0)
    framed.parameters["triton_enable_empty_final_response"].bool_param = True
    replies = await exchange(face.stream(), [plain, framed])
    assert [values(reply.infer_response) for reply in replies] == [[10.0] * 4] * 2


async def test_a_full_window_stops_the_reading(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable, limits=GrpcSettings(stream_window=3))
    call = face.stream()
    for number in range(10):
        await call.write(infer_request(number))
    await call.done_writing()
    await eventually(lambda: face.plane.in_flight == 3)
    await asyncio.sleep(0.05)
    assert face.plane.in_flight == 3
    servable.close()
    assert len([reply async for reply in call]) == 10


async def test_a_client_that_leaves_takes_all_its_requests_with_it(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable)
    call = face.stream()
    for number in range(6):
        await call.write(infer_request(number))
    await eventually(lambda: face.plane.in_flight == 6)
    call.cancel()
    await eventually(lambda: face.plane.in_flight <= 1)
    assert face.plane.queue_depths() == {}
    servable.close()
    await eventually(lambda: face.plane.in_flight == 0)
    assert servable.executed_rows <= servable.info.max_batch_size


async def test_an_empty_stream_ends_cleanly(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    assert await exchange(face.stream(), []) == []


async def test_a_model_in_steps_gives_each_answer_as_it_comes(start_face: Start) -> None:
    face = await start_face(bad.SteppingServable())
    replies = await exchange(face.stream(), [infer_request(3.0, identity="a")])
    assert [reply.infer_response.id for reply in replies] == ["a"] * 3
    assert [values(reply.infer_response)[0] for reply in replies] == [1.0, 2.0, 6.0]
    finals = [reply.infer_response.parameters["triton_final_response"].bool_param for reply in replies]
    assert finals == [False, False, True]


async def test_the_last_answer_is_not_followed_by_an_empty_one(start_face: Start) -> None:
    face = await start_face(bad.SteppingServable())
    request = infer_request(2.0)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    replies = await exchange(face.stream(), [request])
    assert [len(reply.infer_response.outputs) for reply in replies] == [1, 1]


async def test_answers_in_steps_wait_for_no_other_request_and_the_others_keep_their_order(
    start_face: Start,
) -> None:
    hanging = bad.HangingServable()
    stepping = bad.SteppingServable(info=bad.doubling_info("stepper", decoupled=True))
    face = await start_face(hanging, stepping, bad.DoublingServable(bad.doubling_info("quick")), lanes=2)
    call = face.stream()
    requests = [
        infer_request(1.0, identity="held"),
        infer_request(3.0, "stepper", "steps"),
        infer_request(2.0, "quick", "after"),
    ]
    for request in requests:
        await call.write(request)
    assert [(await call.read()).infer_response.id for _ in range(3)] == ["steps"] * 3
    hanging.close()
    assert [(await call.read()).infer_response.id for _ in range(2)] == ["held", "after"]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_failure_after_the_first_answers_is_an_answer_too(start_face: Start) -> None:
    servable = bad.SteppingServable()
    face = await start_face(servable)
    call = face.stream(metadata=(("x-request-timeout-ms", "1000"),))
    await call.write(infer_request(1e6, identity="endless"))
    await call.write(infer_request(1.0, identity="short"))
    await call.done_writing()
    replies = [reply async for reply in call]
    assert [reply.infer_response.id for reply in replies if not reply.error_message].count("short") == 1
    assert [reply.infer_response.id for reply in replies if reply.error_message] == ["endless"]
    assert face.plane.in_flight == 0


async def test_a_stream_needs_a_key(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable(), auth=AuthSettings(keys={"alice": "sesame"}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await exchange(face.stream(), [infer_request()])
    assert caught.value.code() is Code.UNAUTHENTICATED
    replies = await exchange(face.stream(metadata=(("authorization", "Bearer sesame"),)), [infer_request()])
    assert values(replies[0].infer_response) == [2.0] * 4


async def test_a_stream_cannot_get_round_the_quota(start_face: Start) -> None:
    auth = AuthSettings(keys={"alice": "sesame"}, requests_per_second=0.001, burst=3)
    face = await start_face(bad.DoublingServable(), auth=auth)
    call = face.stream(metadata=(("authorization", "Bearer sesame"),))
    replies = await exchange(call, [infer_request(i) for i in range(5)])
    refused = [reply for reply in replies if reply.error_message]
    assert len(refused) == 2  # opening the stream took none of the burst
    assert all("quota" in reply.error_message for reply in refused)


async def test_a_timeout_counts_from_each_request_and_not_from_the_streams_start(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    call = face.stream(metadata=(("x-request-timeout-ms", "600"),))
    for value in (1.0, 2.0):
        await call.write(infer_request(value))
        reply = await call.read()
        assert not reply.error_message, reply.error_message
        await asyncio.sleep(0.7)
    await call.done_writing()


async def test_messages_over_the_upload_budget_are_refused_one_by_one(start_face: Start) -> None:
    servable = bad.HangingServable()
    message = infer_request(1.0).ByteSize()
    face = await start_face(servable, uploads=UploadBudget(2 * message + 1))
    call = face.stream()
    for value in (1.0, 2.0, 3.0):
        await call.write(infer_request(value))
    await eventually(lambda: face.plane.in_flight == 2)
    await call.done_writing()
    await asyncio.sleep(0.05)
    servable.close()
    replies = [reply async for reply in call]
    assert [bool(reply.error_message) for reply in replies] == [False, False, True]
    assert "uploaded" in replies[2].error_message


async def test_when_the_server_stops_open_requests_finish_and_the_stream_ends(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable)
    call = face.stream()
    await call.write(infer_request(1.0))
    await eventually(lambda: face.plane.in_flight == 1)
    stopping = asyncio.create_task(face.server.stop(10.0))
    await asyncio.sleep(0.02)
    servable.close()
    reply = await call.read()
    assert values(reply.infer_response) == [2.0] * 4
    assert await call.code() is Code.UNAVAILABLE
    assert "draining" in await call.details()
    await asyncio.wait_for(stopping, 10)
