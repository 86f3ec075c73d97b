"""The binary tensor data extension: cases 23-25 and 27 of the fault list, in the codec."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from nonet.runtime.oip import json_codec, raw
from nonet.runtime.requests import InferRequest, InferResponse, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from tests.support.oip_strategies import refused

HEADER = "Inference-Header-Content-Length"


def entry(size: Any, shape: list[int], datatype: str = "FP32", name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def decode(
    *inputs: dict[str, Any], payload: bytes = b"", length: int | None = None, pad: int = 0
) -> InferRequest:
    head = json.dumps({"inputs": inputs}).encode() + b" " * pad
    return json_codec.decode_request(
        head + payload, model="m", header_length=len(head) if length is None else length
    )


# Case 23: the length of the JSON part.


@pytest.mark.parametrize("length", [-1, -(2**40), 10_000, 2**62])
def test_a_header_length_outside_the_body_is_refused_with_both_numbers(length: int) -> None:
    with refused(HEADER, length, "bytes", param=HEADER):
        decode(entry(4, [1]), payload=bytes(4), length=length)


def test_a_header_length_that_cuts_the_json_is_refused() -> None:
    with refused(HEADER, "10"):
        decode(entry(4, [1]), payload=bytes(4), length=10)


def test_a_header_length_past_the_json_is_refused() -> None:
    head = json.dumps({"inputs": [entry(4, [1])]}).encode()
    with refused(HEADER):
        json_codec.decode_request(head + b"\xff" * 4, model="m", header_length=len(head) + 2)


@pytest.mark.parametrize(
    "specs",
    [(), (TensorSpec("a", DataType.FP32, (-1,)), TensorSpec("b", DataType.FP32, (-1,)))],
    ids=["none known", "two"],
)
def test_a_header_length_of_zero_needs_a_single_input(specs: Any) -> None:
    with refused(HEADER, "single input"):
        json_codec.decode_request(bytes(8), model="m", header_length=0, inputs=specs)


@pytest.mark.parametrize(
    ("spec", "size", "shape"),
    [
        (TensorSpec("x", DataType.FP32, (-1, 2)), 24, (3, 2)),
        (TensorSpec("x", DataType.INT8, (2, -1)), 6, (2, 3)),
        (TensorSpec("x", DataType.FP64, (2, 2)), 32, (2, 2)),
        (TensorSpec("x", DataType.BYTES, (-1,)), 5, (1,)),
        (TensorSpec("x", DataType.BYTES, (-1, 1)), 5, (1, 1)),
    ],
)
def test_a_body_without_json_is_the_only_input(spec: TensorSpec, size: int, shape: tuple[int, ...]) -> None:
    body = bytes(range(size))
    (got,) = json_codec.decode_request(body, model="m", header_length=0, inputs=(spec,)).inputs
    assert (got.name, got.datatype, got.shape) == ("x", spec.datatype, shape)
    if spec.datatype is DataType.BYTES:
        assert got.data.ravel().tolist() == [body]
    else:
        assert got.data.tobytes() == body


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (TensorSpec("x", DataType.FP32, (-1, 2)), 25),
        (TensorSpec("x", DataType.FP32, (2,)), 12),
        (TensorSpec("x", DataType.FP32, (-1, -1)), 16),
        (TensorSpec("x", DataType.BYTES, (-1, 2)), 8),
        (TensorSpec("x", DataType.FP32, (-1, 0)), 8),
    ],
)
def test_a_body_without_json_that_fits_no_shape_is_refused(spec: TensorSpec, size: int) -> None:
    with refused("x"):
        json_codec.decode_request(bytes(size), model="m", header_length=0, inputs=(spec,))


# Case 24: sizes.


@pytest.mark.parametrize("size", [-4, "4", 4.0, True, 2**63, 2**64 - 1, 1e30])
def test_a_wrong_binary_data_size_is_refused(size: Any) -> None:
    with refused("binary_data_size"):
        decode(entry(size, [1]), payload=bytes(4))


def test_a_null_binary_data_size_is_refused() -> None:
    with refused("binary_data_size"):
        decode(entry(None, [1]), payload=bytes(4))


@pytest.mark.parametrize("left", [0, 3])
def test_a_tensor_past_the_end_of_the_body_is_refused_with_both_numbers(left: int) -> None:
    with refused("binary_data_size is 4", f"{left} bytes"):
        decode(entry(4, [1]), payload=bytes(left))
    with refused("'y'", "binary_data_size is 4", f"{left} bytes"):
        decode(entry(4, [1]), entry(4, [1], name="y"), payload=bytes(4 + left))


@pytest.mark.parametrize("extra", [1, 400])
def test_bytes_left_after_the_tensors_are_refused_with_both_numbers(extra: int) -> None:
    with refused("take 4 bytes", f"{4 + extra} bytes"):
        decode(entry(4, [1]), payload=bytes(4 + extra))


def test_binary_bytes_that_no_tensor_claims_are_refused() -> None:
    plain = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    with refused("take 0 bytes", "4 bytes"):
        decode(plain, payload=bytes(4))


@pytest.mark.parametrize(("size", "shape", "needed"), [(8, [3], 12), (4, [0], 0), (3, [1], 4), (0, [1], 4)])
def test_a_size_that_does_not_fit_the_shape_is_refused_with_both_numbers(
    size: int, shape: list[int], needed: int
) -> None:
    with refused(f"{size} bytes", f"needs {needed}"):
        decode(entry(size, shape), payload=bytes(size))


@pytest.mark.parametrize("shape", [[2**62], [2**4, 2**60 + 2], [2**63 - 1] * 8])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BOOL"])
def test_a_shape_that_overflows_is_refused(shape: list[int], datatype: str) -> None:
    with refused("shape"):
        decode(entry(4, shape, datatype), payload=bytes(4))


def test_data_and_binary_data_at_once_are_refused() -> None:
    with refused("both"):
        decode(entry(4, [1]) | {"data": [1.0]}, payload=bytes(4))


def test_a_binary_size_without_the_header_is_refused() -> None:
    body = json.dumps({"inputs": [entry(4, [1])]}).encode()
    with refused("binary_data_size is 4", "0 bytes"):
        json_codec.decode_request(body, model="m")


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("<I", 100) + b"short",
        struct.pack("<I", 2**32 - 1) + b"ab",
        struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b",
        struct.pack("<I", 1) + b"abc",
        b"\x01\x00",
        b"",
    ],
    ids=["past the end", "four gigabytes", "one too many", "bytes left over", "half a length", "nothing"],
)
def test_bytes_elements_that_do_not_fit_are_refused(payload: bytes) -> None:
    with refused("input 'x'"):
        decode(entry(len(payload), [1], "BYTES"), payload=payload)


def test_a_length_cut_after_a_good_element_is_refused() -> None:
    payload = struct.pack("<I", 3) + b"abc" + b"\x01\x00\x00"
    with refused("element 1 of 2"):
        decode(entry(len(payload), [2], "BYTES"), payload=payload)


def test_a_boolean_byte_other_than_0_and_1_is_refused() -> None:
    with refused("BOOL", "2"):
        decode(entry(3, [3], "BOOL"), payload=b"\x00\x01\x02")


# Case 27: golden vectors, written by hand.

GOLDEN: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("01 00 01", [True, False, True]),
    "UINT8": ("00 7f ff", [0, 127, 255]),
    "UINT16": ("0100 0001 ffff", [1, 256, 65535]),
    "UINT32": ("01000000 00000001 ffffffff", [1, 2**24, 2**32 - 1]),
    "UINT64": ("0100000000000000 0000000000000001 ffffffffffffffff", [1, 2**56, 2**64 - 1]),
    "INT8": ("ff 7f 80", [-1, 127, -128]),
    "INT16": ("feff ff7f 0080", [-2, 32767, -32768]),
    "INT32": ("feffffff ffffff7f 00000080", [-2, 2**31 - 1, -(2**31)]),
    "INT64": ("feffffffffffffff ffffffffffffff7f 0000000000000080", [-2, 2**63 - 1, -(2**63)]),
    "FP16": ("003c 00c0 ff7b", [1.0, -2.0, 65504.0]),
    "BF16": ("803f 00c0 4942", [1.0, -2.0, 50.25]),
    "FP32": ("0000803f 000020c1 cdcccc3d", [1.0, -10.0, float(np.float32(0.1))]),
    "FP64": ("000000000000f03f 00000000000024c0 9a9999999999b93f", [1.0, -10.0, 0.1]),
    "BYTES": ("01000000 61 00000000 03000000 e282ac", [b"a", b"", b"\xe2\x82\xac"]),
}


@pytest.mark.parametrize("datatype", GOLDEN)
@pytest.mark.parametrize("pad", range(8))
def test_golden_vectors_at_every_alignment(datatype: str, pad: int) -> None:
    payload, values = bytes.fromhex(GOLDEN[datatype][0].replace(" ", "")), GOLDEN[datatype][1]
    (got,) = decode(entry(len(payload), [3, 1], datatype), payload=payload, pad=pad).inputs
    assert got.data.dtype == DataType(datatype).numpy
    assert got.data.ravel().astype(object).tolist() == values
    assert got.data.flags.aligned
    assert not got.data.flags.writeable
    assert raw.encode(got.datatype, got.data) == payload


def test_big_endian_and_strided_arrays_leave_little_endian_and_row_major() -> None:
    assert raw.encode(DataType.INT16, np.array([1, 258], dtype=">i2")) == b"\x01\x00\x02\x01"
    columns = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert raw.encode(DataType.UINT8, columns) == bytes(range(6))
    assert raw.encode(DataType.UINT8, np.arange(6, dtype=np.uint8)[::2]) == b"\x00\x02\x04"


@pytest.mark.parametrize("pad", range(4))
def test_a_tensor_aliases_the_body_unless_its_bytes_are_unaligned(pad: int) -> None:
    values = np.arange(1000, dtype=np.float32)
    head = json.dumps({"inputs": [entry(4000, [1000])]}).encode() + b" " * pad
    body = head + values.tobytes()
    whole = np.frombuffer(body, np.uint8)
    (got,) = json_codec.decode_request(body, model="m", header_length=len(head)).inputs
    aligned = (whole.ctypes.data + len(head)) % 4 == 0
    assert np.shares_memory(got.data, whole) == aligned
    assert np.array_equal(got.data, values)


# Case 25: form of each output.

A = Tensor.of("a", np.float32([[0.1, -2.5, 3e30]]))
B = Tensor.of("b", np.array([[1, 2, 3]], np.int32))


def encode(outputs: tuple[RequestedOutput, ...] = (), **parameters: Any) -> tuple[Any, bytes]:
    request = InferRequest("m", (), outputs=outputs, parameters=parameters)
    encoded = json_codec.encode_response(InferResponse("m", "1", (A, B)), request)
    length = len(encoded.body) if encoded.header_length is None else encoded.header_length
    return json.loads(encoded.body[:length])["outputs"], encoded.body[length:]


def form(output: dict[str, Any]) -> Any:
    return output.get("parameters", {}).get("binary_data_size", "json" if "data" in output else None)


@pytest.mark.parametrize(
    ("wish_a", "wish_b", "default", "forms"),
    [
        (None, None, None, ["json", "json"]),
        (None, None, True, [12, 12]),
        (False, None, True, ["json", 12]),
        (None, True, None, ["json", 12]),
        (True, False, True, [12, "json"]),
        (True, True, False, [12, 12]),
    ],
)
def test_each_output_has_the_form_it_was_asked_in(
    wish_a: bool | None, wish_b: bool | None, default: bool | None, forms: list[Any]
) -> None:
    wishes = {"a": wish_a, "b": wish_b}
    asked = tuple(
        RequestedOutput(name, 0, {} if wish is None else {"binary_data": wish})
        for name, wish in wishes.items()
    )
    parameters = {} if default is None else {"binary_data_output": default}
    outputs, payload = encode(asked, **parameters)
    assert [form(output) for output in outputs] == forms
    parts = [tensor.data.tobytes() for tensor, kind in zip((A, B), forms, strict=True) if kind == 12]
    assert payload == b"".join(parts)
    for tensor, output in zip((A, B), outputs, strict=True):
        if form(output) == "json":
            assert np.array(output["data"], tensor.data.dtype).tobytes() == tensor.data.tobytes()


def test_without_requested_outputs_the_request_decides_for_all() -> None:
    outputs, payload = encode(binary_data_output=True)
    assert [form(output) for output in outputs] == [12, 12]
    assert payload == A.data.tobytes() + B.data.tobytes()


def test_json_and_binary_inputs_mix() -> None:
    plain = {"name": "j", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    payload = np.float32([1, 2]).tobytes() + b"\x02\x00\x00\x00hi"
    request = decode(entry(8, [2], name="a"), plain, entry(6, [1], "BYTES", name="b"), payload=payload)
    assert [tensor.name for tensor in request.inputs] == ["a", "j", "b"]
    assert [tensor.data.tolist() for tensor in request.inputs] == [[1.0, 2.0], [1, 2], [b"hi"]]


def test_an_empty_binary_tensor_has_size_zero() -> None:
    (got,) = decode(entry(0, [0, 3])).inputs
    assert got.shape == (0, 3)
    (text,) = decode(entry(0, [0], "BYTES")).inputs
    assert text.data.tolist() == []
