"""Whatever comes in, a codec answers with a request or a ServingError: nothing else is ever raised."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.runtime.errors import ServingError
from nonet.runtime.oip import json_codec, proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.oip.validation import validate
from nonet.runtime.requests import InferRequest
from nonet.runtime.tensors import DataType, TensorSpec, element_count
from tests.support.oip_strategies import as_binary, as_json, model, requests

FEWER = settings(max_examples=40)  # whole requests are slow to draw
SPECS = (TensorSpec("x", DataType.FP32, (-1, 4)),)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
MEMBERS = ["id", "inputs", "outputs", "parameters", "name", "datatype", "shape", "data", "binary_data_size"]


def consistent(request: InferRequest) -> None:
    """A request that was accepted keeps the promises of a Tensor."""
    for tensor in request.inputs:
        assert tensor.data.dtype == tensor.datatype.numpy
        assert tensor.data.size == element_count(tensor.shape)
        assert tensor.data.flags.c_contiguous
        assert tensor.data.flags.aligned
    with contextlib.suppress(ServingError):
        validate(request, model())


def feed(body: bytes, header_length: int | None) -> None:
    with contextlib.suppress(ServingError):
        consistent(json_codec.decode_request(body, model="m", header_length=header_length, inputs=SPECS))


@given(st.binary(max_size=200), st.none() | st.integers(-3, 220))
def test_arbitrary_bytes(body: bytes, header_length: int | None) -> None:
    feed(body, header_length)


@given(JSON_VALUES, st.none() | st.integers(0, 60))
def test_arbitrary_json(value: Any, header_length: int | None) -> None:
    feed(json.dumps(value).encode(), header_length)


def positions(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON document: its container, and its key or index."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


NASTY = (
    st.sampled_from(
        [
            2**62,
            2**63,
            2**64,
            -1,
            0,
            1e308,
            10**400,
            0.5,
            "",
            "FP32",
            "BYTES",
            "BF16",
            True,
            None,
            [],
            {},
            [[]],
            [1],
        ]
    )
    | JSON_VALUES
)


@FEWER
@given(st.data())
def test_valid_requests_with_members_replaced(data: st.DataObject) -> None:
    request = data.draw(requests())
    body, length = as_binary(request)
    document, payload = json.loads(body[:length]), body[length:]
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(positions(document)))
        if data.draw(st.booleans()):
            container[key] = data.draw(NASTY)
        elif isinstance(container, dict):
            container[data.draw(st.sampled_from(MEMBERS))] = data.draw(NASTY)
    head = json.dumps(document).encode()
    feed(head + payload, data.draw(st.sampled_from([len(head), None, length, len(head) + 1])))


@FEWER
@given(st.data())
def test_valid_requests_with_bytes_changed(data: st.DataObject) -> None:
    request = data.draw(requests([DataType.FP32, DataType.BYTES, DataType.INT64, DataType.BOOL], text=True))
    length: int | None
    if data.draw(st.booleans()):
        body, length = as_binary(request)
    else:
        body, length = as_json(request), None
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        cut = data.draw(st.integers(0, 3))
        changed[at : at + cut] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"[", b"9" * 20, b"-", b'"'])
        )
    feed(bytes(changed), length)


@given(st.binary(max_size=200))
def test_arbitrary_messages(octets: bytes) -> None:
    with contextlib.suppress(ServingError, DecodeError):
        consistent(proto_codec.decode_request(message("inference.ModelInferRequest").FromString(octets)))
    with contextlib.suppress(ServingError, DecodeError):
        proto_codec.decode_response(message("inference.ModelInferResponse").FromString(octets))


@FEWER
@given(st.data())
def test_valid_messages_with_bytes_changed(data: st.DataObject) -> None:
    octets = bytearray(proto_codec.encode_request(data.draw(requests())).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets)))
        octets[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with contextlib.suppress(ServingError, DecodeError):
        consistent(
            proto_codec.decode_request(message("inference.ModelInferRequest").FromString(bytes(octets)))
        )


@given(st.data())
def test_messages_whose_fields_disagree(data: st.DataObject) -> None:
    """Fields drawn one by one: names, types, shapes and contents that need not fit each other."""
    found = message("inference.ModelInferRequest")(model_name=data.draw(st.sampled_from(["", "m"])))
    datatypes = st.sampled_from([*(datatype.value for datatype in DataType), "", "X"])
    for _ in range(data.draw(st.integers(0, 3))):
        entry = found.inputs.add(name=data.draw(st.text(max_size=2)), datatype=data.draw(datatypes))
        entry.shape.extend(data.draw(st.lists(st.sampled_from([-1, 0, 1, 2, 2**62]), max_size=3)))
        contents = entry.contents
        contents.fp32_contents.extend(data.draw(st.lists(st.floats(width=32), max_size=2)))
        contents.int_contents.extend(data.draw(st.lists(st.integers(-300, 300), max_size=2)))
        contents.bytes_contents.extend(data.draw(st.lists(st.binary(max_size=2), max_size=1)))
        entry.parameters[data.draw(st.text(max_size=2))].SetInParent()
    found.raw_input_contents.extend(data.draw(st.lists(st.binary(max_size=16), max_size=3)))
    with contextlib.suppress(ServingError):
        consistent(proto_codec.decode_request(found))


@FEWER
@given(requests())
def test_any_request_meets_any_model_with_a_serving_error_at_most(request: InferRequest) -> None:
    specs = [TensorSpec(tensor.name, tensor.datatype, (-1, 2)) for tensor in request.inputs]
    for max_batch_size in (0, 2):
        with contextlib.suppress(ServingError):
            validate(request, model(inputs=specs, max_batch_size=max_batch_size))
