"""gRPC messages: case 29 of the fault list, and the same failures as in JSON, in the codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nonet.runtime.errors import ModelOutputInvalid
from nonet.runtime.oip import proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import INTEGERS, refused

ONE = ("x", "FP32", [1])
FOUR = np.float32([1]).tobytes()


def request(*inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None, model: str = "m") -> Any:
    found = message("inference.ModelInferRequest")(model_name=model, raw_input_contents=raw or [])
    for name, datatype, shape in inputs:
        found.inputs.add(name=name, datatype=datatype, shape=shape)
    return found


def typed(datatype: str, field: str, values: list[Any], shape: list[int] | None = None) -> Any:
    found = request(("x", datatype, [len(values)] if shape is None else shape))
    getattr(found.inputs[0].contents, field).extend(values)
    return found


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_wrong_count_of_raw_contents_is_refused_with_both_numbers(count: int) -> None:
    with refused("raw_input_contents", f"{count} entries", "2 inputs", param="raw_input_contents"):
        proto_codec.decode_request(request(ONE, ("y", "FP32", [1]), raw=[FOUR] * count))


def test_no_contents_at_all_are_refused_with_both_numbers() -> None:
    with refused("0 elements", "needs 1"):
        proto_codec.decode_request(request(ONE))


def test_typed_and_raw_contents_together_are_refused() -> None:
    found = request(ONE, ("y", "FP32", [1]), raw=[FOUR, FOUR])
    found.inputs[1].contents.fp32_contents.append(1.0)
    with refused("'y'", "raw_input_contents"):
        proto_codec.decode_request(found)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_raw_only(datatype: str) -> None:
    with refused(datatype, "raw_input_contents"):
        proto_codec.decode_request(typed(datatype, "fp32_contents", [1.0]))
    raw = proto_codec.decode_request(request(("x", datatype, [1]), raw=[b"\x80\x3f"]))
    assert raw.inputs[0].datatype == datatype


GOLDEN: list[tuple[str, str, list[Any]]] = [
    ("BOOL", "bool_contents", [True, False]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 65535]),
    ("UINT32", "uint_contents", [0, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
    ("FP32", "fp32_contents", [0.5, -1.25]),
    ("FP64", "fp64_contents", [0.1, -1e300]),
    ("BYTES", "bytes_contents", [b"\xff\x00", b""]),
]


@pytest.mark.parametrize(("datatype", "field", "values"), GOLDEN)
def test_typed_contents_of_every_type(datatype: str, field: str, values: list[Any]) -> None:
    (got,) = proto_codec.decode_request(typed(datatype, field, values, [2, 1])).inputs
    assert got.shape == (2, 1)
    assert got.data.dtype == DataType(datatype).numpy
    assert got.data.ravel().tolist() == values
    assert not got.data.flags.writeable


@pytest.mark.parametrize(("datatype", "field", "values"), GOLDEN)
def test_contents_in_a_field_of_another_type_are_refused(
    datatype: str, field: str, values: list[Any]
) -> None:
    other, other_values = ("fp64_contents", [1.0]) if field != "fp64_contents" else ("int_contents", [1])
    with refused(f"contents.{field}", f"contents.{other}"):
        proto_codec.decode_request(typed(datatype, other, other_values))
    both = typed(datatype, field, values)
    getattr(both.inputs[0].contents, other).extend(other_values)
    with refused(f"contents.{other}"):
        proto_codec.decode_request(both)


@pytest.mark.parametrize("shape", [[3], [1], [2**62], [2**4, 2**60 + 2], [0]])
def test_typed_contents_that_do_not_fill_the_shape_are_refused(shape: list[int]) -> None:
    with refused("inputs[0].shape" if shape[0] >= 16 else "2 elements"):
        proto_codec.decode_request(typed("FP32", "fp32_contents", [1.0, 2.0], shape))


@pytest.mark.parametrize("datatype", [d for d in INTEGERS if d.numpy.itemsize < 4])
def test_typed_integers_out_of_range_are_refused(datatype: DataType) -> None:
    limits = np.iinfo(datatype.numpy)
    field = "uint_contents" if limits.min == 0 else "int_contents"
    for wrong in {int(limits.max) + 1, int(limits.min) - 1} - {-1}:
        with refused("'x'", wrong, datatype, limits.max):
            proto_codec.decode_request(typed(datatype, field, [0, wrong]))


@pytest.mark.parametrize(
    ("shape", "raw"),
    [([-1], FOUR), ([1, -1], FOUR), ([2], FOUR), ([1], FOUR[:3]), ([1], b""), ([2**62], FOUR)],
)
def test_raw_contents_that_do_not_fill_the_shape_are_refused(shape: list[int], raw: bytes) -> None:
    with refused():
        proto_codec.decode_request(request(("x", "FP32", shape), raw=[raw]))


@pytest.mark.parametrize(
    ("entry", "word"),
    [(("", "FP32", [1]), "name"), (("x", "", [1]), "datatype"), (("x", "float", [1]), "FP32, FP64, BYTES")],
)
def test_names_and_datatypes_are_checked(entry: Any, word: str) -> None:
    with refused("inputs[0]", word):
        proto_codec.decode_request(request(entry, raw=[FOUR]))


def test_a_request_without_inputs_or_model_is_refused() -> None:
    with refused("inputs"):
        proto_codec.decode_request(request())
    with refused("model_name"):
        proto_codec.decode_request(request(ONE, raw=[FOUR], model=""))


def test_parameters_keep_their_kinds_and_must_be_finite() -> None:
    sent = {"b": True, "i": -(2**63), "u": 2**64 - 1, "f": 0.5, "s": "t"}
    tensors = (Tensor.of("x", np.float32([1])),)
    outputs = (RequestedOutput("y", 3, {"binary_data": False}),)
    found = proto_codec.encode_request(InferRequest("m", tensors, parameters=sent, outputs=outputs))
    got = proto_codec.decode_request(found)
    assert got.parameters == sent
    assert {name: type(value) for name, value in got.parameters.items()} == {
        name: type(value) for name, value in sent.items()
    }
    assert got.outputs == outputs
    found.parameters["f"].double_param = float("nan")
    with refused("'f'", "finite"):
        proto_codec.decode_request(found)
    found.parameters["f"].Clear()
    with refused("'f'", "no value"):
        proto_codec.decode_request(found)


def test_requested_outputs_are_checked() -> None:
    found = request(ONE, raw=[FOUR])
    output = found.outputs.add(name="y")
    output.parameters["classification"].int64_param = -1
    with refused("classification"):
        proto_codec.decode_request(found)
    output.name = ""
    output.parameters.clear()
    with refused("outputs[0].name"):
        proto_codec.decode_request(found)


def test_shared_memory_is_refused_clearly() -> None:
    found = request(ONE)
    found.inputs[0].parameters["shared_memory_region"].string_param = "region"
    with refused("shared memory"):
        proto_codec.decode_request(found)


def test_an_answer_goes_out_raw_and_comes_back() -> None:
    outputs = (Tensor.of("y", np.float32([[1, 2]])), Tensor.of_bytes("t", [b"\xff", b""]))
    response = InferResponse("m", "3", outputs, id="i", parameters={"k": 1})
    found = proto_codec.encode_response(response, InferRequest("m", ()))
    assert list(found.raw_output_contents) == [np.float32([1, 2]).tobytes(), b"\x01\0\0\0\xff\0\0\0\0"]
    back = proto_codec.decode_response(found)
    assert (back.model, back.version, back.id, back.parameters) == ("m", "3", "i", {"k": 1})
    assert [tensor.data.tolist() for tensor in back.outputs] == [[[1.0, 2.0]], [b"\xff", b""]]


def test_an_answer_without_an_id_has_that_of_its_request() -> None:
    found = proto_codec.encode_response(InferResponse("m", "1", ()), InferRequest("m", (), id="mine"))
    assert found.id == "mine"


def test_a_typed_answer_of_another_server_is_read() -> None:
    found = message("inference.ModelInferResponse")(model_name="m")
    found.outputs.add(name="y", datatype="INT8", shape=[2]).contents.int_contents.extend([-1, 1])
    assert proto_codec.decode_response(found).outputs[0].data.tolist() == [-1, 1]


@pytest.mark.parametrize("raw", [[FOUR, FOUR], [FOUR[:2]]])
def test_a_malformed_answer_is_the_models_fault(raw: list[bytes]) -> None:
    found = message("inference.ModelInferResponse")(model_name="m", raw_output_contents=raw)
    found.outputs.add(name="y", datatype="FP32", shape=[1])
    with pytest.raises(ModelOutputInvalid, match="output"):
        proto_codec.decode_response(found)
