"""Building blocks of the protocol tests: strategies for tensors and requests, and ways to write them down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip import json_codec, raw
from nonet.runtime.requests import InferRequest, RequestedOutput
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor, TensorSpec

JSON_TYPES = [datatype for datatype in DataType if datatype not in (DataType.FP16, DataType.BF16)]
INTEGERS = [datatype for datatype in DataType if "INT" in datatype]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@contextmanager
def refused(*words: object, param: str | None = None) -> Iterator[None]:
    """The block raises InvalidArgument, with every word in its message."""
    with pytest.raises(InvalidArgument) as caught:
        yield
    for word in words:
        assert str(word) in caught.value.message, f"{word!r} is not in {caught.value.message!r}"
    if param is not None:
        assert caught.value.param == param
    assert len(caught.value.message) < 1000
    assert "Traceback" not in caught.value.message


def arrays(datatype: DataType, *, text: bool = False) -> st.SearchStrategy[np.ndarray]:
    """Finite arrays of a data type; BYTES hold UTF-8 if ``text``, else anything."""
    if datatype is DataType.BYTES:
        items = TEXT.map(str.encode) if text else st.binary(max_size=8)
        return SHAPES.flatmap(lambda shape: hnp.arrays(object, shape, elements=items))
    if datatype is DataType.BF16:
        bits = st.integers(0, 0xFFFF).filter(lambda value: value & 0x7F80 != 0x7F80)
        return hnp.arrays(np.uint16, SHAPES, elements=bits).map(lambda array: array.view(datatype.numpy))
    if datatype.is_float:
        width = datatype.numpy.itemsize * 8
        elements = st.floats(allow_nan=False, allow_infinity=False, width=width)
        return hnp.arrays(datatype.numpy, SHAPES, elements=elements)
    return hnp.arrays(datatype.numpy, SHAPES)


def tensors(types: Sequence[DataType] = tuple(DataType), *, text: bool = False) -> st.SearchStrategy[Tensor]:
    """A tensor of one of the ``types``."""
    return st.sampled_from(types).flatmap(
        lambda datatype: st.builds(Tensor, NAMES, st.just(datatype), arrays(datatype, text=text))
    )


PARAMETERS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(lambda name: "p" + name),
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    max_size=3,
)


def requests(
    types: Sequence[DataType] = tuple(DataType), *, text: bool = False
) -> st.SearchStrategy[InferRequest]:
    """A request with one to three tensors, parameters and requested outputs."""
    outputs = st.builds(RequestedOutput, NAMES, st.integers(0, 9), PARAMETERS)
    return st.builds(
        InferRequest,
        model=NAMES,
        inputs=st.lists(tensors(types, text=text), min_size=1, max_size=3).map(tuple),
        version=st.sampled_from(["", "1", "12"]),
        outputs=st.lists(outputs, max_size=2).map(tuple),
        parameters=PARAMETERS,
        id=TEXT,
    )


def same_tensors(got: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Names, types, shapes and every bit of the data agree."""
    assert [(t.name, t.datatype, t.shape) for t in got] == [(t.name, t.datatype, t.shape) for t in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.data.dtype == one.datatype.numpy
        assert raw.encode(one.datatype, one.data) == raw.encode(other.datatype, other.data)


def same_requests(got: InferRequest, expected: InferRequest) -> None:
    """Everything that travels with a request agrees."""
    for field in ("model", "version", "outputs", "parameters", "id"):
        assert getattr(got, field) == getattr(expected, field)
    same_tensors(got.inputs, expected.inputs)


def json_data(tensor: Tensor, *, nested: bool = False) -> Any:
    """The tensor's data as Python values that ``json.dumps`` can write."""
    data = tensor.data if nested and tensor.data.ndim else tensor.data.reshape(-1)
    if tensor.datatype is DataType.BYTES:
        data = np.frompyfunc(bytes.decode, 1, 1)(data) if data.size else data
    return data.tolist()


def document(request: InferRequest, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON document of a request around its ``inputs``."""
    outputs = [
        {
            "name": output.name,
            "parameters": dict(output.parameters)
            | ({"classification": output.classification} if output.classification else {}),
        }
        for output in request.outputs
    ]
    found: dict[str, Any] = {"id": request.id, "parameters": dict(request.parameters), "inputs": list(inputs)}
    return found | ({"outputs": outputs} if outputs else {})


def described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype.value, "shape": list(tensor.shape)}


def as_json(request: InferRequest, *, nested: bool = False) -> bytes:
    """The request as plain JSON."""
    inputs = [described(tensor) | {"data": json_data(tensor, nested=nested)} for tensor in request.inputs]
    return json.dumps(document(request, inputs)).encode()


def as_binary(request: InferRequest) -> tuple[bytes, int]:
    """The request with all tensors in binary form: body, and length of its JSON part."""
    payload = [raw.encode(tensor.datatype, tensor.data) for tensor in request.inputs]
    inputs = [
        described(tensor) | {"parameters": {"binary_data_size": len(octets)}}
        for tensor, octets in zip(request.inputs, payload, strict=True)
    ]
    head = json.dumps(document(request, inputs)).encode()
    return head + b"".join(payload), len(head)


def model(
    *,
    inputs: Sequence[TensorSpec] = (TensorSpec("x", DataType.FP32, (-1, 4)),),
    outputs: Sequence[TensorSpec] = (TensorSpec("y", DataType.FP32, (-1, 4)),),
    max_batch_size: int = 8,
    allow_nonfinite: bool = False,
    **more: Any,
) -> ModelInfo:
    """A model's description; by default one FP32 input and output of four numbers per row."""
    return ModelInfo(
        name="m",
        version="1",
        digest="0" * 64,
        platform="onnxruntime_onnx",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        max_batch_size=max_batch_size,
        allow_nonfinite=allow_nonfinite,
        **more,
    )


def json_tensor(data: Any, shape: Any = None, datatype: Any = "FP32", name: Any = "x") -> dict[str, Any]:
    """One input of a JSON request; the shape is that of flat data unless given."""
    return {
        "name": name,
        "datatype": datatype,
        "shape": [len(data)] if shape is None else shape,
        "data": data,
    }


def decode_json(body: Any, **more: Any) -> InferRequest:
    """What the codec reads from ``body``: octets, or a document to write as JSON first."""
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json_codec.decode_request(octets, model="m", **more)
