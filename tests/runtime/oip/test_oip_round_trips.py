"""Promises over all requests: every form carries a request without a change, and all forms say the same."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.runtime.oip import json_codec, proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import (
    JSON_TYPES,
    as_binary,
    as_json,
    requests,
    same_requests,
    same_tensors,
    tensors,
)

FEWER = settings(max_examples=50)  # whole requests are slow to draw


def over_json(request: InferRequest, *, nested: bool) -> InferRequest:
    return json_codec.decode_request(
        as_json(request, nested=nested), model=request.model, version=request.version
    )


def over_binary(request: InferRequest) -> InferRequest:
    body, length = as_binary(request)
    return json_codec.decode_request(body, model=request.model, version=request.version, header_length=length)


def over_proto(request: InferRequest) -> InferRequest:
    octets = proto_codec.encode_request(request).SerializeToString()
    return proto_codec.decode_request(message("inference.ModelInferRequest").FromString(octets))


@FEWER
@given(requests())
def test_raw_forms_carry_every_request(request: InferRequest) -> None:
    same_requests(over_binary(request), request)
    same_requests(over_proto(request), request)


@FEWER
@given(requests(JSON_TYPES, text=True), st.booleans())
def test_json_binary_and_proto_say_the_same(request: InferRequest, nested: bool) -> None:
    for got in (over_json(request, nested=nested), over_binary(request), over_proto(request)):
        same_requests(got, request)


@FEWER
@given(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda tensor: tensor.name), st.text("ab"))
def test_raw_answers_carry_every_tensor(outputs: list[Tensor], request_id: str) -> None:
    response = InferResponse("m", "1", tuple(outputs), id=request_id)
    octets = proto_codec.encode_response(response, InferRequest("m", ())).SerializeToString()
    back = proto_codec.decode_response(message("inference.ModelInferResponse").FromString(octets))
    same_tensors(back.outputs, outputs)
    encoded = json_codec.encode_response(
        response, InferRequest("m", (), parameters={"binary_data_output": True})
    )
    assert encoded.header_length is not None
    head = json.loads(encoded.body[: encoded.header_length])
    rest = encoded.body[encoded.header_length :]
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert sum(sizes) == len(rest)
    # An answer has the form of a request: our own reader reads it back.
    again = json.dumps({"inputs": head["outputs"]}).encode()
    same_tensors(json_codec.decode_request(again + rest, model="m", header_length=len(again)).inputs, outputs)


@FEWER
@given(st.lists(tensors(JSON_TYPES, text=True), min_size=1, max_size=3, unique_by=lambda tensor: tensor.name))
def test_json_answers_are_strict_and_exact(outputs: list[Tensor]) -> None:
    encoded = json_codec.encode_response(InferResponse("m", "1", tuple(outputs)), InferRequest("m", ()))
    assert encoded.header_length is None
    head = json.loads(encoded.body, parse_constant=lambda literal: 1 / 0)
    got = json_codec.decode_request(json.dumps({"inputs": head["outputs"]}).encode(), model="m").inputs
    assert [(t.name, t.datatype, t.shape) for t in got] == [(t.name, t.datatype, t.shape) for t in outputs]
    for one, other in zip(got, outputs, strict=True):
        # Both codecs write a FP32 with the digits that read back as it, and -0.0 as -0.0.
        assert one.data.tolist() == other.data.tolist()
        if one.datatype.is_float:
            assert np.array_equal(np.signbit(one.data), np.signbit(other.data))


@FEWER
@given(st.data())
def test_the_form_of_an_output_never_changes_its_values(data: st.DataObject) -> None:
    outputs = data.draw(
        st.lists(
            tensors([DataType.FP32, DataType.INT64, DataType.BOOL]), max_size=3, unique_by=lambda t: t.name
        )
    )
    wishes = [data.draw(st.sampled_from([None, True, False])) for _ in outputs]
    default = data.draw(st.booleans())
    asked = tuple(
        RequestedOutput(tensor.name, 0, {} if wish is None else {"binary_data": wish})
        for tensor, wish in zip(outputs, wishes, strict=True)
    )
    request = InferRequest("m", (), outputs=asked, parameters={"binary_data_output": default})
    encoded = json_codec.encode_response(InferResponse("m", "1", tuple(outputs)), request)
    length = len(encoded.body) if encoded.header_length is None else encoded.header_length
    head, rest = json.loads(encoded.body[:length]), encoded.body[length:]
    for tensor, wish, output in zip(outputs, wishes, head["outputs"], strict=True):
        if default if wish is None else wish:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], tensor.data.dtype), rest[size:]
        else:
            values = np.array(output["data"], tensor.data.dtype)
        assert values.tobytes() == tensor.data.tobytes()
    assert rest == b""
