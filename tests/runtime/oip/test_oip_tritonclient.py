"""Triton's own HTTP and gRPC clients against the codecs: their requests decode, our answers parse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.grpc import _utils as grpc_requests
from tritonclient.grpc import service_pb2

from nonet.runtime.oip import json_codec, proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import JSON_TYPES, same_tensors, tensors


def client_input(module: Any, tensor: Tensor, **how: Any) -> Any:
    found = module.InferInput(tensor.name, list(tensor.shape), tensor.datatype.value)
    found.set_data_from_numpy(tensor.data, **how)
    return found


def sent_over_http(inputs: list[Any], **more: Any) -> InferRequest:
    body, length = triton_http.InferenceServerClient.generate_request_body(inputs, **more)
    return json_codec.decode_request(body, model="m", header_length=length)


@given(tensors())
def test_binary_inputs_of_the_http_client(tensor: Tensor) -> None:
    same_tensors(sent_over_http([client_input(triton_http, tensor)]).inputs, [tensor])


@given(tensors(JSON_TYPES, text=True))
def test_json_inputs_of_the_http_client(tensor: Tensor) -> None:
    same_tensors(sent_over_http([client_input(triton_http, tensor, binary_data=False)]).inputs, [tensor])


def test_every_option_of_an_http_request() -> None:
    a, b = Tensor.of("a", np.float32([[1, 2]])), Tensor.of_bytes("b", [b"text"], (1, 1))
    request = sent_over_http(
        [client_input(triton_http, a), client_input(triton_http, b, binary_data=False)],
        outputs=[
            triton_http.InferRequestedOutput("y", binary_data=False),
            triton_http.InferRequestedOutput("z", class_count=3),
        ],
        request_id="id-1",
        sequence_id=7,
        sequence_start=True,
        priority=2,
        timeout=5000,
        parameters={"mine": "yes", "scale": 0.5},
    )
    same_tensors(request.inputs, [a, b])
    assert request.id == "id-1"
    assert request.outputs == (
        RequestedOutput("y", 0, {"binary_data": False}),
        RequestedOutput("z", 3, {"binary_data": True}),
    )
    assert request.parameters == {
        "sequence_id": 7,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 5000,
        "mine": "yes",
        "scale": 0.5,
    }


def test_without_outputs_the_http_client_wants_all_in_binary() -> None:
    request = sent_over_http([client_input(triton_http, Tensor.of("x", np.float32([1])))])
    assert request.parameters == {"binary_data_output": True}
    encoded = json_codec.encode_response(InferResponse("m", "1", request.inputs), request)
    assert encoded.header_length is not None


@given(tensors(JSON_TYPES, text=True), st.booleans())
def test_the_http_client_parses_our_answers(tensor: Tensor, binary: bool) -> None:
    asked = (RequestedOutput(tensor.name, 0, {"binary_data": binary}),)
    encoded = json_codec.encode_response(
        InferResponse("m", "1", (tensor,), id="i"), InferRequest("m", (), outputs=asked)
    )
    result = triton_http.InferenceServerClient.parse_response_body(
        encoded.body, header_length=encoded.header_length
    )
    assert result.get_response()["id"] == "i"
    assert result.get_output(tensor.name)["datatype"] == tensor.datatype
    got = result.as_numpy(tensor.name)
    if tensor.datatype is DataType.BYTES:
        texts = [item if isinstance(item, bytes) else item.encode() for item in got.ravel().tolist()]
        assert texts == tensor.data.ravel().tolist()
    else:
        assert got.tobytes() == tensor.data.tobytes()
    assert got.shape == tensor.shape


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.float64])
def test_the_http_client_parses_binary_answers_of_several_outputs(dtype: Any) -> None:
    outputs = (
        Tensor.of("a", np.array([[1, 2]], dtype)),
        Tensor.of_bytes("b", [b"\xff", b""]),
        Tensor.of("c", np.array([3], dtype)),
    )
    encoded = json_codec.encode_response(
        InferResponse("m", "1", outputs), InferRequest("m", (), parameters={"binary_data_output": True})
    )
    result = triton_http.InferenceServerClient.parse_response_body(
        encoded.body, header_length=encoded.header_length
    )
    assert result.as_numpy("a").tolist() == [[1, 2]]
    assert result.as_numpy("b").tolist() == [b"\xff", b""]
    assert result.as_numpy("c").tolist() == [3]


@given(tensors())
def test_the_grpc_client_and_ours_understand_each_other(tensor: Tensor) -> None:
    theirs = grpc_requests._get_inference_request(
        model_name="m",
        inputs=[client_input(triton_grpc, tensor)],
        model_version="2",
        request_id="i",
        outputs=[triton_grpc.InferRequestedOutput("y", class_count=4)],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters={"mine": 1},
    )
    octets = theirs.SerializeToString()
    request = proto_codec.decode_request(message("inference.ModelInferRequest").FromString(octets))
    same_tensors(request.inputs, [tensor])
    assert (request.model, request.version, request.id) == ("m", "2", "i")
    assert request.outputs == (RequestedOutput("y", 4),)
    assert request.parameters == {"mine": 1}
    response = proto_codec.encode_response(InferResponse("m", "2", (tensor,)), request)
    result = triton_grpc.InferResult(service_pb2.ModelInferResponse.FromString(response.SerializeToString()))
    got = result.as_numpy(tensor.name)
    assert got.shape == tensor.shape
    if tensor.datatype is DataType.BYTES:
        assert got.ravel().tolist() == tensor.data.ravel().tolist()
    else:
        assert got.tobytes() == tensor.data.tobytes()
