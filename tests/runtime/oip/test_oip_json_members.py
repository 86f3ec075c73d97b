"""What stands beside the tensors in JSON, and JSON answers: cases 14, 18 and 28 of the fault list."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nonet.runtime.oip import json_codec
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import decode_json as decode
from tests.support.oip_strategies import json_tensor as tensor
from tests.support.oip_strategies import refused

# Parameters, outputs, id.


@pytest.mark.parametrize(
    "parameters", [[], "x", 1, True, {"deep": {"a": 1}}, {"list": [1]}, {"nothing": None}]
)
def test_parameters_are_a_flat_object(parameters: Any) -> None:
    with refused("parameters"):
        decode({"inputs": [tensor([1.0])], "parameters": parameters})
    with refused("parameters"):
        decode({"inputs": [tensor([1.0]) | {"parameters": parameters}]})


def test_parameters_keep_their_kinds() -> None:
    sent = {"b": True, "i": 3, "n": -(2**63), "u": 2**64 - 1, "f": 0.5, "s": "t", "whole": 1.0}
    got = decode({"inputs": [tensor([1.0])], "parameters": sent}).parameters
    assert got == sent
    assert {name: type(value) for name, value in got.items()} == {k: type(v) for k, v in sent.items()}


@pytest.mark.parametrize("value", [1, "true", 0.0])
def test_a_wish_for_binary_outputs_is_true_or_false(value: Any) -> None:
    with refused("binary_data_output", "true or false"):
        decode({"inputs": [tensor([1.0])], "parameters": {"binary_data_output": value}})
    with refused("binary_data", "true or false"):
        decode({"inputs": [tensor([1.0])], "outputs": [{"name": "y", "parameters": {"binary_data": value}}]})


@pytest.mark.parametrize("outputs", ["y", {}, [1], [None], [{}], [{"name": None}], [{"name": ""}], 1])
def test_requested_outputs_of_the_wrong_kind_are_refused(outputs: Any) -> None:
    with refused("outputs"):
        decode({"inputs": [tensor([1.0])], "outputs": outputs})


@pytest.mark.parametrize("classes", [-1, 1.0, "3", True])
def test_classification_is_a_whole_number(classes: Any) -> None:
    with refused("classification"):
        decode(
            {
                "inputs": [tensor([1.0])],
                "outputs": [{"name": "y", "parameters": {"classification": classes}}],
            }
        )


def test_requested_outputs_are_read() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"classification": 3, "binary_data": True}}]
    assert decode({"inputs": [tensor([1.0])], "outputs": outputs}).outputs == (
        RequestedOutput("a"),
        RequestedOutput("b", 3, {"binary_data": True}),
    )


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_shared_memory_is_refused_clearly(side: str) -> None:
    body: dict[str, Any] = {"inputs": [tensor([1.0])], "outputs": [{"name": "y"}]}
    body[side][0]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    with refused("shared memory"):
        decode(body)


@pytest.mark.parametrize("request_id", ["", "abc", "42", "\u00e9-\u00fc", "with space"])
def test_the_id_comes_through_and_back(request_id: str) -> None:
    request = decode({"id": request_id, "inputs": [tensor([1.0])]})
    assert request.id == request_id
    answer = json.loads(json_codec.encode_response(InferResponse("m", "1", ()), request).body)
    assert answer.get("id", "") == request_id
    assert ("id" in answer) == bool(request_id)


@pytest.mark.parametrize("request_id", [1, [], {}, True, 0.5])
def test_an_id_that_is_no_text_is_refused(request_id: Any) -> None:
    with refused("id must be a string"):
        decode({"id": request_id, "inputs": [tensor([1.0])]})


def test_null_members_count_as_absent_and_unknown_ones_are_ignored() -> None:
    request = decode(
        {"id": None, "parameters": None, "outputs": None, "whatever": [1], "inputs": [tensor([1.0])]}
    )
    assert (request.id, request.parameters, request.outputs) == ("", {}, ())


# Answers.


def encode(*outputs: Tensor, **parameters: Any) -> Any:
    request = InferRequest("m", (), parameters=parameters)
    return json_codec.encode_response(InferResponse("m", "2", outputs, id="i"), request)


def test_an_answer_in_json() -> None:
    encoded = encode(
        Tensor.of("a", np.float32([[0.1, 1]])),
        Tensor.of("b", np.array([[2**63]], np.uint64)),
        Tensor.of("c", np.array([True])),
        Tensor.of_bytes("d", [b"x", "\u20ac".encode()]),
        Tensor.of("e", np.zeros((0, 3), np.int8)),
    )
    assert encoded.header_length is None
    assert json.loads(encoded.body) == {
        "model_name": "m",
        "model_version": "2",
        "id": "i",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 1]},
            {"name": "b", "datatype": "UINT64", "shape": [1, 1], "data": [2**63]},
            {"name": "c", "datatype": "BOOL", "shape": [1], "data": [True]},
            {"name": "d", "datatype": "BYTES", "shape": [2], "data": ["x", "\u20ac"]},
            {"name": "e", "datatype": "INT8", "shape": [0, 3], "data": []},
        ],
    }


def test_parameters_of_an_answer_are_written() -> None:
    response = InferResponse("m", "1", (), parameters={"final": True})
    body = json_codec.encode_response(response, InferRequest("m", ())).body
    assert json.loads(body)["parameters"] == {"final": True}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_json_cannot_hold_is_refused_not_written_as_null(value: float) -> None:
    with refused("output 'y'", "binary_data"):
        encode(Tensor.of("y", np.array([1.0, value])))
    with refused("output 'y'", "binary_data"):
        encode(Tensor("y", DataType.FP16, np.array([1.0], np.float16)))
    with refused("output 'y'", "UTF-8"):
        encode(Tensor.of_bytes("y", [b"\xff"]))


def test_strided_and_big_endian_answers_are_written_right() -> None:
    strided = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    assert json.loads(encode(Tensor("y", DataType.INT32, strided)).body)["outputs"][0]["data"] == [
        *[0, 2, 4, 6, 8, 10]
    ]
    big = np.array([1, 258], dtype=">i4")
    assert json.loads(encode(Tensor("y", DataType.INT32, big)).body)["outputs"][0]["data"] == [1, 258]
