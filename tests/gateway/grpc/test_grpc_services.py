"""Health, reflection, metadata, statistics, repository and the settings of other servers, over gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from nonet.runtime.errors import Conflict, NotFound
from nonet.runtime.oip import description
from nonet.runtime.oip.messages import OPEN_INFERENCE, methods
from tests.support import misbehaving_servables as bad
from tests.support.grpc_server import METHODS, infer_request

Start = Callable[..., Any]
Code = grpc.StatusCode
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


class Repository:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def load(self, name: str, config_override: str | None = None) -> None:
        self.calls.append(("load", name, config_override))
        if self.error is not None:
            raise self.error

    def unload(self, name: str, timeout: float = 30.0) -> None:
        self.calls.append(("unload", name))
        if self.error is not None:
            raise self.error


# -- health


@pytest.mark.parametrize("service", ["", OPEN_INFERENCE, "nonet.v1.Recognition"])
async def test_health_follows_readiness_for_each_service(start_face: Start, service: str) -> None:
    face = await start_face(bad.DoublingServable())
    stub = health_pb2_grpc.HealthStub(face.channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await stub.Check(request)).status == SERVING
    face.plane.leaving = True
    assert (await stub.Check(request)).status == NOT_SERVING


async def test_health_of_an_unknown_service_is_not_found(start_face: Start) -> None:
    face = await start_face()
    stub = health_pb2_grpc.HealthStub(face.channel)
    error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert error.code() is Code.NOT_FOUND


async def test_several_watchers_hear_of_the_drain_at_once_and_end_with_the_server(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    stub = health_pb2_grpc.HealthStub(face.channel)
    watchers = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
    watchers.append(stub.Watch(health_pb2.HealthCheckRequest(service="nobody")))
    first = [(await watcher.read()).status for watcher in watchers]
    assert first == [SERVING] * 3 + [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]
    face.plane.leaving = True
    face.server.health.changed()
    assert [(await watcher.read()).status for watcher in watchers[:3]] == [NOT_SERVING] * 3
    await asyncio.wait_for(face.server.stop(30.0), 10)
    for watcher in watchers:
        assert await watcher.read() is grpc.aio.EOF


# -- reflection


def ask(face: Any, version: str, *requests: Any) -> Any:
    return face.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda sent: sent.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(requests), timeout=10)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service_completely(start_face: Start, version: str) -> None:
    face = await start_face()
    request = reflection_pb2.ServerReflectionRequest
    (listed,) = [reply async for reply in ask(face, version, request(list_services="*"))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        OPEN_INFERENCE,
        "nonet.v1.Adaptation",
        "nonet.v1.FloorIdentification",
        "nonet.v1.Grounding",
        "nonet.v1.RawImage",
        "nonet.v1.TextToImage",
        "nonet.v1.Recognition",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in names:
        (reply,) = [each async for each in ask(face, version, request(file_containing_symbol=name))]
        files = reply.file_descriptor_response.file_descriptor_proto
        pool = descriptor_pool.DescriptorPool()
        # Dependencies come after the files that need them.
        for file in reversed([descriptor_pb2.FileDescriptorProto.FromString(raw) for raw in files]):
            pool.Add(file)
        found = pool.FindServiceByName(name)
        if name == OPEN_INFERENCE:
            assert [method.name for method in found.methods] == [
                each.name for each in methods(OPEN_INFERENCE)
            ]


async def test_reflection_says_what_it_does_not_know(start_face: Start) -> None:
    face = await start_face()
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Thing")
    (reply,) = [each async for each in ask(face, "v1", request)]
    assert reply.error_response.error_code == Code.NOT_FOUND.value[0]


# -- the server and its models


async def test_metadata_and_config(start_face: Start) -> None:
    info = bad.doubling_info(config={"name": "doubler", "max_batch_size": 8, "platform": "onnxruntime_onnx"})
    face = await start_face(bad.DoublingServable(info))
    server = await face.call("ServerMetadata")
    assert server.name == "nonet"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(
        server.extensions
    )
    model = await face.call("ModelMetadata", {"name": "doubler"})
    assert (list(model.versions), model.inputs[0].name, list(model.inputs[0].shape)) == (["1"], "x", [-1, 4])
    config = (await face.call("ModelConfig", {"name": "doubler"})).config
    assert (config.name, config.max_batch_size) == ("doubler", 8)
    assert description.PARAMETER not in config.parameters
    for method in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        assert (await failure(face.call(method, {"name": "absent"}))).code() is Code.NOT_FOUND


async def test_model_ready_is_a_plain_answer(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    for name, version, ready in (("doubler", "", True), ("doubler", "1", True), ("doubler", "7", False),
                                 ("absent", "", False), ("../x", "", False)):  # fmt: skip
        assert (await face.call("ModelReady", {"name": name, "version": version})).ready is ready


async def test_a_service_describes_its_models_for_the_gateway(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable(), describe_models=True, services=())
    config = (await face.call("ModelConfig", {"name": "doubler"})).config
    told = json.loads(config.parameters[description.PARAMETER].string_value)
    assert told["digest"] == "digest-of-doubler-1"
    classify = methods("nonet.v1.Recognition")[0]
    error = await failure(face.channel.unary_unary(classify.path)(b""))
    assert error.code() is Code.UNIMPLEMENTED


async def test_statistics_count_what_was_done(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    await face.infer(1.0)
    await face.call("ModelInfer", infer_request(2.0, rows=3))
    (entry,) = (await face.call("ModelStatistics", {"name": "doubler"})).model_stats
    assert (entry.inference_count, entry.execution_count) == (4, 2)
    assert entry.inference_stats.success.count == 2
    assert entry.inference_stats.success.ns > 0
    assert [batch.batch_size for batch in entry.batch_stats] == [1, 3]
    assert len((await face.call("ModelStatistics")).model_stats) == 1


# -- the repository


async def test_the_index_lists_what_can_be_called(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    (entry,) = (await face.call("RepositoryIndex")).models
    assert (entry.name, entry.version, entry.state) == ("doubler", "1", "READY")


async def test_load_and_unload_reach_the_repository(start_face: Start) -> None:
    repository = Repository()
    face = await start_face(repository=repository)
    await face.call("RepositoryModelLoad", {"model_name": "net"})
    await face.call(
        "RepositoryModelLoad", {"model_name": "net", "parameters": {"config": {"string_param": "{}"}}}
    )
    await face.call(
        "RepositoryModelUnload",
        {"model_name": "net", "parameters": {"unload_dependents": {"bool_param": True}}},
    )
    assert repository.calls == [("load", "net", None), ("load", "net", "{}"), ("unload", "net")]


@pytest.mark.parametrize(
    ("error", "code"), [(NotFound("unknown model"), Code.NOT_FOUND), (Conflict("busy"), Code.ABORTED)]
)
async def test_a_failed_load_has_the_status_of_its_cause(
    start_face: Start, error: Exception, code: grpc.StatusCode
) -> None:
    repository = Repository()
    repository.error = error
    face = await start_face(repository=repository)
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        assert (await failure(face.call(name, {"model_name": "net"}))).code() is code


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"model_name": "../../etc"}, Code.NOT_FOUND),
        ({"model_name": ""}, Code.NOT_FOUND),
        (
            {"model_name": "net", "parameters": {"file:1/model.onnx": {"bytes_param": b"x"}}},
            Code.UNIMPLEMENTED,
        ),
        ({"model_name": "net", "parameters": {"confg": {"string_param": "{}"}}}, Code.INVALID_ARGUMENT),
        ({"model_name": "net", "parameters": {"config": {"int64_param": 1}}}, Code.INVALID_ARGUMENT),
    ],
)
async def test_a_load_that_makes_no_sense_touches_nothing(
    start_face: Start, request_fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    repository = Repository()
    face = await start_face(repository=repository)
    assert (await failure(face.call("RepositoryModelLoad", request_fields))).code() is code
    assert repository.calls == []


async def test_control_can_be_switched_off(start_face: Start) -> None:
    repository = Repository()
    face = await start_face(repository=repository, repository_control=False)
    error = await failure(face.call("RepositoryModelUnload", {"model_name": "net"}))
    assert error.code() is Code.PERMISSION_DENIED
    assert repository.calls == []


# -- what other servers have


async def test_shared_memory_is_empty_and_cannot_be_registered(start_face: Start) -> None:
    face = await start_face()
    for kind in ("System", "Cuda"):
        assert not (await face.call(f"{kind}SharedMemoryStatus")).regions
        await face.call(f"{kind}SharedMemoryUnregister")
        error = await failure(face.call(f"{kind}SharedMemoryStatus", {"name": "r"}))
        assert error.code() is Code.NOT_FOUND
        error = await failure(face.call(f"{kind}SharedMemoryRegister", {"name": "r", "byte_size": 8}))
        assert error.code() is Code.UNIMPLEMENTED


async def test_trace_and_log_settings_are_shown_and_fixed(start_face: Start) -> None:
    face = await start_face()
    trace = (await face.call("TraceSetting")).settings
    assert list(trace["trace_level"].value) == ["OFF"]
    await face.call("TraceSetting", {"settings": {"trace_level": {"value": ["OFF"]}}})
    error = await failure(face.call("TraceSetting", {"settings": {"trace_level": {"value": ["TIMESTAMPS"]}}}))
    assert error.code() is Code.UNIMPLEMENTED
    error = await failure(face.call("TraceSetting", {"settings": {"nonsense": {"value": ["1"]}}}))
    assert error.code() is Code.INVALID_ARGUMENT
    log = (await face.call("LogSettings")).settings
    assert log["log_error"].bool_param
    await face.call("LogSettings", {"settings": {"log_error": {"bool_param": True}}})
    error = await failure(face.call("LogSettings", {"settings": {"log_error": {"bool_param": False}}}))
    assert error.code() is Code.UNIMPLEMENTED


async def test_an_unknown_method_is_unimplemented(start_face: Start) -> None:
    face = await start_face()
    error = await failure(face.channel.unary_unary(f"/{OPEN_INFERENCE}/NoSuchCall")(b""))
    assert error.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    "name", [each.name for each in METHODS.values() if not each.client_streaming], ids=str
)
async def test_no_method_crashes_on_an_empty_or_broken_message(start_face: Start, name: str) -> None:
    face = await start_face(bad.DoublingServable(), repository=Repository())
    for raw in (b"", b"\xff\xff\xff\xff", b"\x0a\x02\xff\xff"):
        try:
            await face.call(name, raw)
        except grpc.aio.AioRpcError as error:
            assert error.code() not in (Code.INTERNAL, Code.UNKNOWN), error.details()
