"""The tensors of JSON requests: cases 1-14, 22 and 26 of the fault list, in the codec."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.tensors import DataType, Tensor
from tests.support.oip_strategies import INTEGERS, refused
from tests.support.oip_strategies import decode_json as decode
from tests.support.oip_strategies import json_tensor as tensor


def decode_one(entry: dict[str, Any]) -> Tensor:
    (found,) = decode({"inputs": [entry]}).inputs
    return found


# Cases 1-4: the body as a whole.


@pytest.mark.parametrize(
    "body", [b"{", b'{"inputs": [}', b"{'inputs': []}", b"\x00\x01", b"nul", b"{}{}", b'{"id": "\xff"}']
)
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode(body)
    assert caught.value.code == "MALFORMED_JSON"


def test_a_lone_surrogate_is_refused() -> None:
    with refused("JSON"):
        decode(b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}')


def test_an_empty_body_is_refused() -> None:
    with refused("empty", "inputs"):
        decode(b"")


@pytest.mark.parametrize(
    ("body", "what"),
    [(b"[]", "an array"), (b'"inputs"', "a string"), (b"1", "an integer"), (b"null", "null")],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, what: str) -> None:
    with refused("object", what):
        decode(body)


@pytest.mark.parametrize("inputs", [None, [], {}, "x", 1, [1], [None], [[]], ["x"]])
def test_inputs_that_are_no_list_of_tensors_are_refused(inputs: Any) -> None:
    with refused("inputs"):
        decode({"inputs": inputs})


@pytest.mark.parametrize("member", ["name", "datatype", "shape", "data"])
def test_a_missing_member_is_named(member: str) -> None:
    entry = tensor([1.0])
    del entry[member]
    with refused(f"inputs[0].{member} is missing", param=f"inputs[0].{member}"):
        decode({"inputs": [entry]})


@pytest.mark.parametrize("name", ["", 1, None, [], {}])
def test_a_name_must_be_text(name: Any) -> None:
    with refused("inputs[0].name"):
        decode_one(tensor([1.0], name=name))


# Cases 5, 7-11: data types and shapes.


@pytest.mark.parametrize("datatype", ["FLOAT", "fp32", "", 1, None, [], "TYPE_FP32", "X" * 5000])
def test_an_unknown_datatype_is_refused_with_the_known_ones(datatype: Any) -> None:
    with refused("datatype", "BOOL", "UINT8", "INT64", "BF16", "FP32", "BYTES"):
        decode_one(tensor([1.0], datatype=datatype))


@pytest.mark.parametrize(
    ("data", "shape", "got", "needed"),
    [
        ([1.0, 2.0, 3.0], [1, 4], 3, 4),
        ([[1.0, 2.0, 3.0]], [1, 2], 3, 2),
        ([], [1, 2], 0, 2),
        ([1.0], [0], 1, 0),
        ([1.0] * 7, [2, 3], 7, 6),
        ([[1.0, 2.0], [3.0]], [2, 2], 3, 4),
        ([1.0, 2.0], [], 2, 1),
        ([[]], [1, 1], 0, 1),
    ],
)
def test_data_that_does_not_fill_the_shape_is_refused_with_both_numbers(
    data: Any, shape: list[int], got: int, needed: int
) -> None:
    with refused("input 'x'", f"{got} elements", f"needs {needed}", param="inputs[0].data"):
        decode_one(tensor(data, shape))


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([[1, 2], [3, 4], [5, 6]], [2, 3]),
        ([[1, 2, 3, 4]], [2, 2]),
        ([[1], [2], [3, 4]], [4]),
        ([[[1]]], [1, 1]),
    ],
)
def test_data_nested_unlike_the_shape_is_refused_not_guessed(data: Any, shape: list[int]) -> None:
    with refused("nested", "shape"):
        decode_one(tensor(data, shape))


@pytest.mark.parametrize("data", [[[1.0], 2.0], [1.0, [2.0]], [[1.0], "x"], [[[1.0]], [2.0]]])
def test_data_that_mixes_arrays_and_values_is_refused(data: Any) -> None:
    with refused("mixes"):
        decode_one(tensor(data, [2]))


@pytest.mark.parametrize("data", ["1.0", 1.0, None, {}, True, {"0": 1}])
def test_data_that_is_no_array_is_refused(data: Any) -> None:
    with refused("data must be an array"):
        decode_one(tensor(data, [1]))


def test_flat_and_nested_data_are_the_same_tensor() -> None:
    flat = decode_one(tensor([1, 2, 3, 4, 5, 6], [1, 2, 3]))
    nested = decode_one(tensor([[[1, 2, 3], [4, 5, 6]]], [1, 2, 3]))
    assert flat.data.tobytes() == nested.data.tobytes()
    assert flat.shape == nested.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("data", "shape"),
    [([], [0]), ([], [1, 0]), ([[]], [1, 0]), ([[], []], [2, 0, 3]), ([], [0, 2**59]), ([7], [])],
)
def test_zero_sizes_and_scalars_have_a_form(data: Any, shape: list[int]) -> None:
    assert decode_one(tensor(data, shape)).shape == tuple(shape)


@pytest.mark.parametrize("shape", [[-1], [1, -1], [-1, -1], [-(2**63)]])
def test_a_negative_size_is_refused(shape: list[int]) -> None:
    with refused("shape", "-"):
        decode_one(tensor([1.0], shape))


@pytest.mark.parametrize(
    "shape", [[2**62], [1, 2**62], [2**4, 2**60 + 2], [2**32, 2**32], [2**63 - 1] * 32, [2**63], [10**30]]
)
def test_a_shape_that_overflows_is_refused_without_allocation(shape: list[int]) -> None:
    tracemalloc.start()
    try:
        with refused("shape"):
            decode_one(tensor([1.0], shape))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape", [[1.0], ["1"], "1,1", [True], [None], [[1]], {}, 1, None, [1] * 33, [1e400], [1.5]]
)
def test_a_shape_of_anything_but_sizes_is_refused(shape: Any) -> None:
    body = json.dumps({"inputs": [tensor([1.0]) | {"shape": shape}]}).replace("Infinity", "1e18")
    with refused("inputs[0].shape"):
        decode(body.encode())


# Cases 12-14, 26: values.


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_are_exact_to_the_bounds_and_refused_beyond(datatype: DataType) -> None:
    limits = np.iinfo(datatype.numpy)
    low, high = int(limits.min), int(limits.max)
    assert decode_one(tensor([low, high], datatype=datatype)).data.tolist() == [low, high]
    for wrong in (low - 1, high + 1):
        with refused("input 'x'", "data[1]", datatype, low, high):
            decode_one(tensor([0, wrong], datatype=datatype))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        *[("FP32", value) for value in ("1", True, None, {})],
        *[("FP64", value) for value in ("1e3", False)],
        *[("INT32", value) for value in ("1", True, 1.5, 1.0, 1e3, None)],
        *[("UINT64", value) for value in (True, 0.5)],
        *[("BOOL", value) for value in ("true", 2, 0, 1, 1.0, None)],
        *[("BYTES", value) for value in (1, True, None, {}, 1.5)],
    ],
)
def test_values_of_another_kind_are_refused_and_their_place_named(datatype: str, value: Any) -> None:
    valid = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
    with refused("input 'x'", "data[2]", datatype, param="inputs[0].data"):
        decode_one(tensor([valid, valid, value], datatype=datatype))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "-3.5e38"])
def test_numbers_that_are_not_finite_are_refused(literal: str) -> None:
    with pytest.raises(InvalidArgument):
        decode(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[%s]}]}' % literal.encode())


def test_a_number_beyond_fp32_is_named_with_the_limit() -> None:
    with refused("data[1]", "1e+39", "FP32", "3.40282e+38"):
        decode_one(tensor([0, 1e39]))
    assert decode_one(tensor([1e39], datatype="FP64")).data.tolist() == [1e39]


def test_large_integers_are_numbers_too() -> None:
    assert decode_one(tensor([2**64 - 1, 1], datatype="FP64")).data.tolist() == [float(2**64 - 1), 1.0]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_json_form(datatype: str) -> None:
    with refused(datatype, "binary"):
        decode_one(tensor([1.0], datatype=datatype))


def test_bytes_are_the_utf8_of_strings() -> None:
    found = decode_one(tensor(["a", "", "\u20ac", "\x00", "\U0001f600"], datatype="BYTES"))
    assert found.data.tolist() == [b"a", b"", b"\xe2\x82\xac", b"\x00", b"\xf0\x9f\x98\x80"]


def test_decoded_tensors_are_read_only_in_every_form() -> None:
    for entry in (tensor([1.0]), tensor([1], datatype="INT8"), tensor(["a"], datatype="BYTES"), tensor([])):
        assert not decode_one(entry).data.flags.writeable


# Case 22: bombs.

NESTED = {
    "data": b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": %s%s}]}',
    "parameters": b'{"parameters": {"deep": %s%s}, "inputs": []}',
    "name": b'{"inputs": [{"name": %s%s}]}',
    "top": b"%s%s",
}


@pytest.mark.parametrize("where", NESTED)
@pytest.mark.parametrize("depth", [100, 1000, 10_000, 1_000_000])
def test_deep_nesting_is_refused(where: str, depth: int) -> None:
    with pytest.raises(InvalidArgument):
        decode(NESTED[where] % (b"[" * depth, b"]" * depth))


@pytest.mark.parametrize("separator", [b":", b" :", b"\n\t :"], ids=["plain", "a space", "white space"])
def test_a_million_keys_are_refused_without_making_them(separator: bytes) -> None:
    body = b"{" + b",".join(b'"k\\"%d"%s1' % (number, separator) for number in range(1_000_000)) + b"}"
    tracemalloc.start()
    try:
        with refused("members"):
            decode(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", [b"[],", b"{},", b"[[[],{}]],"])
def test_millions_of_lists_and_objects_are_refused_without_making_them(part: bytes) -> None:
    count = 2_100_000 // (part.count(b"[") + part.count(b"{"))
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[' + part * count + b"1]}]}"
    tracemalloc.start()
    try:
        with refused("objects and arrays"):
            decode(body)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_brackets_inside_strings_are_no_lists() -> None:
    texts = ["[" * 1000, '"{[', "\\{", '{"a":[1]}'] * 2200
    assert decode_one(tensor(texts, datatype="BYTES")).data.tolist() == [text.encode() for text in texts]


def test_colons_inside_strings_are_no_keys() -> None:
    texts = [":", '":', '\\":', "a:b", '{"a":1}', "12:30"] * 5000
    found = decode_one(tensor(texts, datatype="BYTES"))
    assert found.data.tolist() == [text.encode() for text in texts]


def test_an_endless_string_full_of_quotes_is_scanned_once() -> None:
    """Quadratic scanning of this body would take hours."""
    with refused("JSON"):
        decode(b'{"' + b'\\"' * 1_000_000 + b":" * 20_000)


def test_messages_never_quote_a_large_value_in_full() -> None:
    long = "x" * 1_000_000
    for body in (
        {"inputs": [tensor([1.0], datatype=long)]},
        {"inputs": [tensor([long])]},
        {"inputs": [tensor([1.0, 2.0], [1], name=long)]},
        {"inputs": [tensor([1.0])], "parameters": {long: None}},
        {"inputs": [tensor([1.0])], "id": [long]},
    ):
        with refused():
            decode(body)
