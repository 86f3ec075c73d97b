"""gRPC as ``grpcurl`` would use it: no generated code, everything from the server's own reflection."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from tests.support.running_server import RunningServer, assert_no_leak

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address) as opened:
        yield opened


@pytest.fixture(scope="module")
def reflected(channel: grpc.Channel) -> ProtoReflectionDescriptorDatabase:
    return ProtoReflectionDescriptorDatabase(channel)


class Dynamic:
    """Calls a method known only by its name: messages are made from reflected descriptors."""

    def __init__(self, channel: grpc.Channel, pool: DescriptorPool, service: str) -> None:
        self._channel = channel
        self._service = pool.FindServiceByName(service)

    def request(self, method: str, **fields: Any) -> Any:
        descriptor = self._service.FindMethodByName(method)
        return message_factory.GetMessageClass(descriptor.input_type)(**fields)

    def call(self, method: str, request: Any, timeout: float = 30.0) -> Any:
        descriptor = self._service.FindMethodByName(method)
        answer = message_factory.GetMessageClass(descriptor.output_type)
        path = f"/{self._service.full_name}/{method}"
        stub = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        return stub(request, timeout=timeout)


@pytest.fixture(scope="module")
def recognition(channel: grpc.Channel, reflected: ProtoReflectionDescriptorDatabase) -> Dynamic:
    return Dynamic(channel, DescriptorPool(reflected), "nonet.v1.Recognition")


@pytest.fixture(scope="module")
def inference(channel: grpc.Channel, reflected: ProtoReflectionDescriptorDatabase) -> Dynamic:
    return Dynamic(channel, DescriptorPool(reflected), "inference.GRPCInferenceService")


def picture(*, white: bool = False) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(2).integers(255 if white else 0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_reflection_lists_every_service(reflected: ProtoReflectionDescriptorDatabase) -> None:
    assert set(reflected.get_services()) >= {
        "inference.GRPCInferenceService",
        "nonet.v1.Recognition",
        "grpc.health.v1.Health",
    }


def test_reflection_describes_the_protocol_completely(reflected: ProtoReflectionDescriptorDatabase) -> None:
    service = DescriptorPool(reflected).FindServiceByName("inference.GRPCInferenceService")
    assert {method.name for method in service.methods} >= {
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    }


def test_an_unknown_symbol_is_refused_not_fatal(reflected: ProtoReflectionDescriptorDatabase) -> None:
    with pytest.raises(KeyError):
        reflected.FindFileContainingSymbol("no.such.Thing")
    assert reflected.get_services()


def test_inference_through_reflected_messages(inference: Dynamic) -> None:
    request = inference.request("ModelInfer", model_name="echo_fp32")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.5, 2.5])
    reply = inference.call("ModelInfer", request)
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [1.5, 2.5]


def test_classify_over_grpc_agrees_with_http(recognition: Dynamic, server: RunningServer) -> None:
    image = picture()
    reply = recognition.call(
        "Classify", recognition.request("Classify", image=image, model="tinynet", top_k=3)
    )
    http = server.http.post(
        "/v1/classify", files={"image": ("a.png", image)}, data={"model": "tinynet", "top_k": "3"}
    ).json()
    assert reply.model == http["model"]
    assert [(entry.index, entry.label) for entry in reply.predictions] == [
        (entry["index"], entry["label"]) for entry in http["predictions"]
    ]
    assert [entry.score for entry in reply.predictions] == pytest.approx(
        [entry["score"] for entry in http["predictions"]], abs=1e-6
    )
    scores = [entry.score for entry in reply.predictions]
    assert scores == sorted(scores, reverse=True)


def test_classify_defaults_to_five_classes_of_the_best_model(recognition: Dynamic) -> None:
    reply = recognition.call("Classify", recognition.request("Classify", image=picture(), model="tiny"))
    assert len(reply.predictions) == 5
    assert sum(entry.score for entry in reply.predictions) == pytest.approx(1, abs=1e-5)
    assert reply.version


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"image": b"", "model": "tinynet"}, Code.INVALID_ARGUMENT),
        ({"image": b"no image", "model": "tinynet"}, Code.INVALID_ARGUMENT),
        ({"image": picture()[:300], "model": "tinynet"}, Code.INVALID_ARGUMENT),
        ({"image": picture(), "model": "nobody"}, Code.NOT_FOUND),
        ({"image": picture(), "model": "tinynet", "top_k": 0}, Code.INVALID_ARGUMENT),
        ({"image": picture(white=True), "model": "nannet"}, Code.INTERNAL),
    ],
)
def test_classify_refuses_with_grpc_codes(recognition: Dynamic, fields: dict[str, Any], code: Code) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        recognition.call("Classify", recognition.request("Classify", **fields))
    assert caught.value.code() == code, caught.value
    assert_no_leak(caught.value.details())


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/nonet.v1.Recognition/Nothing")(b"", timeout=10)
    assert caught.value.code() == Code.UNIMPLEMENTED


def test_bytes_that_are_no_message_never_break_the_server(
    channel: grpc.Channel, server: RunningServer
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff" * 50, timeout=10)
    assert caught.value.code() in (Code.INVALID_ARGUMENT, Code.INTERNAL)
    assert_no_leak(caught.value.details())
    assert server.http.get("/v2/health/live").status_code == 200


def test_the_standard_health_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "nonet.v1.Recognition"):
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert caught.value.code() == Code.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
