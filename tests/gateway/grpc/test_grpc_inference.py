"""Single inference over gRPC: what metadata asks for, what comes back, how failures and leaving look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from nonet.gateway.core.upload_budget import UploadBudget
from nonet.gateway.settings.grpc_settings import GrpcSettings
from nonet.gateway.settings.schema import AuthSettings
from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.oip.messages import message
from tests.support import misbehaving_servables as bad
from tests.support.grpc_server import METHODS, infer_request, values

Start = Callable[..., Any]
Code = grpc.StatusCode


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_answer_says_how_it_was_made(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    call = face.infer(3.0, metadata=(("x-request-id", "mine-1"),))
    reply = await call
    assert values(reply) == [6.0] * 4
    assert (reply.model_name, reply.model_version) == ("doubler", "1")
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-request-id"] == "mine-1"
    assert trailing["x-model-version"] == "1"
    assert trailing["x-device"] == "cpu"
    assert trailing["x-cache"] == "bypass"  # nothing is kept here
    assert trailing["x-batch-size"] == "1"
    assert trailing["server-timing"].startswith("decode;dur=")
    assert face.routes[-1][:2] == (METHODS["ModelInfer"].path, "OK")
    assert face.routes[-1][3] == "doubler"


async def test_a_failure_has_status_code_cause_and_request_id(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    error = await failure(face.infer(model="absent"))
    assert error.code() is Code.NOT_FOUND
    assert "absent" in error.details()
    trailing = dict(error.trailing_metadata())
    assert trailing["nonet-error-code"] == "MODEL_NOT_FOUND"
    assert trailing["nonet-error-param"] == "model"
    assert len(trailing["x-request-id"]) == 32
    assert face.routes[-1][1] == "NOT_FOUND"


async def test_an_unknown_name_is_made_harmless(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    for name in ("../../etc/passwd", "a\nb", "x" * 5000, "\u202e", ""):
        error = await failure(face.infer(model=name))
        assert error.code() is Code.NOT_FOUND
        assert "\n" not in error.details()
        assert len(error.details()) < 500


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\xff", b"\x2a\x05ab"])
async def test_bytes_that_are_no_message_are_the_callers_fault(start_face: Start, raw: bytes) -> None:
    face = await start_face(bad.DoublingServable())
    error = await failure(face.call("ModelInfer", raw))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "ModelInferRequest" in error.details()


class Raising(bad.DoublingServable):
    """Raises whatever it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def execute(self, batch: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in (InvalidArgument, *ServingError.__subclasses__())
        if int(kind.grpc_status) not in (0, 1, 14)
    ],
)
async def test_every_failure_of_the_model_has_its_status(start_face: Start, kind: type[ServingError]) -> None:
    face = await start_face(Raising(kind("the backend said no", param="x", retry_after=1.5)))
    error = await failure(face.infer())
    assert error.code().value[0] == int(kind.grpc_status)
    assert error.details() == "the backend said no"
    trailing = dict(error.trailing_metadata())
    assert trailing["nonet-error-code"] == kind.default_code
    assert trailing["retry-after"] == "1.500"


async def test_a_defect_says_nothing_of_itself(start_face: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    face = await start_face(bad.DoublingServable())

    def broken(name: str = "", version: str = "") -> Any:
        raise RuntimeError("secret /path/of/ours")

    monkeypatch.setattr(face.plane, "statistics", broken)
    error = await failure(face.call("ModelStatistics"))
    assert error.code() is Code.INTERNAL
    assert "secret" not in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] in error.details()
    await eventually(lambda: bool(face.routes) and face.routes[-1][1] == "INTERNAL")  # told after the answer


async def test_a_message_that_cannot_be_ascii_still_arrives(start_face: Start) -> None:
    face = await start_face(Raising(InvalidArgument("caf\u00e9 \udc80 \u4e2d", param="caf\u00e9\n")))
    error = await failure(face.infer())
    assert error.details() == "caf\u00e9 ? \u4e2d"
    assert dict(error.trailing_metadata())["nonet-error-param"] == "caf__"


async def test_the_deadline_of_the_call_is_the_deadline_of_the_work(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable)
    first = await failure(face.infer(1.0, timeout=0.3))
    assert first.code() is Code.DEADLINE_EXCEEDED
    second = await failure(face.infer(2.0, timeout=0.3))
    assert second.code() in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
    servable.close()
    await eventually(lambda: face.plane.in_flight == 0)
    assert servable.executed_rows <= 1


async def test_the_timeout_of_the_metadata_counts_too(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable)
    error = await failure(face.infer(timeout=20, metadata=(("x-request-timeout-ms", "200"),)))
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert "deadline" in error.details()


@pytest.mark.parametrize(
    ("key", "text"),
    [("x-request-timeout-ms", "soon"), ("x-priority", "-1"), ("x-priority", "high")],
)
async def test_metadata_that_makes_no_sense_is_refused(start_face: Start, key: str, text: str) -> None:
    face = await start_face(bad.DoublingServable())
    error = await failure(face.infer(metadata=((key, text),)))
    assert error.code() is Code.INVALID_ARGUMENT
    assert key in error.details().lower()


async def test_a_caller_that_leaves_takes_its_queued_work_with_it(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable)
    running = face.infer(1.0)
    await eventually(lambda: face.plane.utilisation()["cpu"] == 1.0)
    queued = face.infer(2.0)
    await eventually(lambda: face.plane.in_flight == 2)
    queued.cancel()
    await eventually(lambda: face.plane.in_flight == 1)
    assert face.plane.queue_depths() == {}
    servable.close()
    assert values(await running) == [2.0] * 4
    assert servable.executed_rows == 1
    await eventually(lambda: any(status == "CANCELLED" for _, status, _, _ in face.routes))


async def test_equal_calls_share_unless_told_not_to(start_face: Start) -> None:
    servable = bad.SlowServable(0.05)
    face = await start_face(servable)
    await asyncio.gather(*(face.infer(5.0) for _ in range(6)))
    assert servable.executed_rows == 1
    await asyncio.gather(*(face.infer(6.0, metadata=(("cache-control", "no-store"),)) for _ in range(3)))
    assert servable.executed_rows == 4


async def test_keys_are_asked_for_where_something_is_told_or_done(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable(), auth=AuthSettings(keys={"alice": "sesame"}))
    for name, request in (
        ("ModelInfer", infer_request()),
        ("ModelMetadata", {"name": "doubler"}),
        ("RepositoryIndex", {}),
        ("ModelStatistics", {}),
        ("TraceSetting", {}),
        ("SystemSharedMemoryStatus", {}),
    ):
        assert (await failure(face.call(name, request))).code() is Code.UNAUTHENTICATED
        await face.call(name, request, metadata=(("authorization", "Bearer sesame"),))
    assert (await face.call("ServerLive")).live
    assert (await face.call("ServerReady")).ready


async def test_over_the_quota_is_resource_exhausted_with_a_time(start_face: Start) -> None:
    auth = AuthSettings(keys={"alice": "sesame"}, requests_per_second=0.001, burst=1)
    face = await start_face(bad.DoublingServable(), auth=auth)
    bearer = (("authorization", "Bearer sesame"),)
    await face.infer(metadata=bearer)
    error = await failure(face.infer(metadata=bearer))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert float(dict(error.trailing_metadata())["retry-after"]) > 0


async def test_fault_29_a_message_over_the_limit_is_resource_exhausted(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable(), limits=GrpcSettings(max_message_bytes=4096))
    error = await failure(face.call("ModelInfer", infer_request(rows=8).SerializeToString() + bytes(8192)))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert (await face.call("ServerLive")).live


async def test_while_draining_calls_are_refused_and_readiness_says_so(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    face.plane.leaving = True
    assert not (await face.call("ServerReady")).ready
    assert values(await face.infer()) == [2.0] * 4
    await face.plane.drain(1.0)
    error = await failure(face.infer(7.0))
    assert error.code() is Code.UNAVAILABLE
    assert dict(error.trailing_metadata())["nonet-error-code"] == "DRAINING"


@pytest.mark.parametrize("limit", ["max_message_bytes", "max_concurrent_streams", "stream_window"])
def test_limits_are_positive(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        GrpcSettings(**{limit: 0})


async def test_the_typed_contents_of_a_request_are_read_too(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    request = message("inference.ModelInferRequest")(model_name="doubler")
    entry = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    entry.contents.fp32_contents.extend([1, 2, 3, 4])
    assert values(await face.call("ModelInfer", request)) == [2.0, 4.0, 6.0, 8.0]


async def test_calls_over_the_upload_budget_are_refused_and_the_memory_is_given_back(
    start_face: Start,
) -> None:
    servable = bad.HangingServable()
    uploads = UploadBudget(infer_request(1.0).ByteSize() + 1)
    face = await start_face(servable, uploads=uploads)
    first = face.infer(1.0)
    await eventually(servable.entered.is_set)
    error = await failure(face.infer(2.0))
    assert error.code() is Code.UNAVAILABLE
    assert dict(error.trailing_metadata())["nonet-error-code"] == "UPLOADS_OVER_BUDGET"
    servable.close()
    assert values(await first) == [2.0] * 4
    await eventually(lambda: uploads.held == 0)
    assert values(await face.infer(3.0)) == [6.0] * 4


async def test_calls_on_all_connections_together_are_bounded(start_face: Start) -> None:
    servable = bad.HangingServable()
    face = await start_face(servable, limits=GrpcSettings(max_concurrent_rpcs=2))
    calls = [face.infer(value) for value in (1.0, 2.0)]
    await eventually(lambda: face.plane.in_flight == 2)
    assert (await failure(face.infer(3.0))).code() is Code.RESOURCE_EXHAUSTED
    servable.close()
    assert [values(await call) for call in calls] == [[2.0] * 4, [4.0] * 4]


async def test_an_upload_under_way_when_the_drain_begins_is_finished(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    method = METHODS["ModelInfer"]
    call = face.channel.stream_unary(method.path, response_deserializer=method.response.FromString)(
        timeout=20
    )
    await eventually(lambda: face.plane.in_flight == 1)
    draining = asyncio.create_task(face.plane.drain(10.0))
    await asyncio.sleep(0)
    assert (await failure(face.infer(1.0))).code() is Code.UNAVAILABLE
    await call.write(infer_request(4.0).SerializeToString())
    await call.done_writing()
    assert values(await call) == [8.0] * 4
    assert await draining is True


async def test_a_call_that_ends_before_its_message_is_the_callers_fault(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    call = face.channel.stream_unary(METHODS["ModelInfer"].path)(timeout=20)
    await call.done_writing()
    assert (await failure(call)).code() is Code.INVALID_ARGUMENT
    await eventually(lambda: face.plane.in_flight == 0)
