"""The REST form of the Open Inference Protocol: JSON, with or without the binary tensor data extension.

With the extension a body is JSON followed by the raw bytes of some tensors, in the order of their
``binary_data_size``; the header ``Inference-Header-Content-Length`` gives the length of the JSON part. A
length of 0 announces no JSON at all: the whole body is the one input of a model that has only one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip import fields, json_values, raw, shared_memory
from nonet.runtime.oip.shared_memory import CallerMemory
from nonet.runtime.requests import InferRequest, InferResponse, Parameter, RequestedOutput
from nonet.runtime.tensors import DataType, Tensor, TensorSpec, element_count

HEADER_LENGTH = "Inference-Header-Content-Length"

MAX_KEYS = 10_000
"""Members of all objects of one request together. Tensors are few; only an attack has more."""

MAX_BRACKETS = 1 << 21
"""Objects and arrays of one request together, nested data included; data of more rows can be sent flat."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?\s*+(:?)', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([\[{])', re.DOTALL)
_Body = bytes | bytearray | memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """A response body; ``header_length`` is the length of its JSON part, None if it is all JSON."""

    body: bytes
    header_length: int | None


def decode_request(
    body: _Body,
    *,
    model: str,
    version: str = "",
    header_length: int | None = None,
    inputs: Sequence[TensorSpec] = (),
    memory: CallerMemory | None = None,
) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body, decompressed. Tensors may alias it: do not change it afterwards.
        model, version: from the route.
        header_length: value of ``Inference-Header-Content-Length``, None if the header is absent.
        inputs: what the model takes; needed only for a ``header_length`` of 0.
        memory: the caller's shared memory, None where it is not served.

    Raises:
        InvalidArgument: naming the field at fault. Nothing else is ever raised for a bad body, but by
            ``memory``.
    """
    if header_length is None:
        return _from_document(_parse(body, "the body"), body, len(body), model, version, memory)
    if header_length < 0 or header_length > len(body):
        raise InvalidArgument(
            f"{HEADER_LENGTH} is {header_length}, but the body has {len(body)} bytes", param=HEADER_LENGTH
        )
    if header_length == 0:
        return InferRequest(model, (_whole_body(body, inputs),), version)
    head = memoryview(body)[:header_length]
    what = f"the first {header_length} bytes of the body ({HEADER_LENGTH})"
    return _from_document(_parse(head, what), body, header_length, model, version, memory)


def _parse(text: _Body, what: str) -> dict[str, Any]:
    if not text:
        raise InvalidArgument(f"{what} is empty; a JSON object with 'inputs' is expected", param="inputs")
    octets = text if isinstance(text, bytes) else bytes(text)
    _refuse_many_keys(octets)
    _refuse_many_brackets(octets)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"{what} is not valid JSON: {error}", code="MALFORMED_JSON") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} must be a JSON object, got {fields.kind(document)}")
    return document


def _refuse_many_keys(octets: bytes) -> None:
    """Raises if the objects of a text have more members than a request needs, before any is made.

    Colons bound the members from above, and counting them costs next to nothing. Only if there are many is
    the text scanned for strings that stand before a colon.
    """
    if octets.count(b":") <= MAX_KEYS:
        return
    keys = 0
    for found in _STRING.finditer(octets):
        keys += found.end(1) - found.start(1)
        if keys > MAX_KEYS:
            raise InvalidArgument(f"the JSON objects of the request have more than {MAX_KEYS} members in all")


def _refuse_many_brackets(octets: bytes) -> None:
    """Raises if a text has more objects and arrays than a request needs, before any is made: they take many
    times its memory, and all other requests would wait for them. Counted as the members are."""
    if octets.count(b"[") + octets.count(b"{") <= MAX_BRACKETS:
        return
    brackets = 0
    for found in _STRING_OR_BRACKET.finditer(octets):
        brackets += found.end(1) - found.start(1)
        if brackets > MAX_BRACKETS:
            raise InvalidArgument(
                f"the JSON of the request has more than {MAX_BRACKETS} objects and arrays; send data flat"
            )


def _from_document(
    document: Mapping[str, Any],
    body: _Body,
    offset: int,
    model: str,
    version: str,
    memory: CallerMemory | None,
) -> InferRequest:
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidArgument(f"id must be a string, got {fields.shown(request_id)}", param="id")
    parameters = fields.read_parameters(document.get("parameters"), "parameters")
    fields.read_flag(parameters, "binary_data_output", "parameters")
    return InferRequest(
        model=model,
        inputs=_inputs(document.get("inputs"), body, offset, memory),
        version=version,
        outputs=_outputs(document.get("outputs"), memory),
        parameters=parameters,
        id=request_id or "",
    )


def _entries(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InvalidArgument(f"{where} must be an array of objects, got {fields.shown(value)}", param=where)
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise InvalidArgument(
                f"{where}[{index}] must be an object, got {fields.shown(entry)}", param=f"{where}[{index}]"
            )
    return value


def _member(entry: Mapping[str, Any], name: str, where: str) -> Any:
    try:
        return entry[name]
    except KeyError:
        raise InvalidArgument(f"{where}.{name} is missing", param=f"{where}.{name}") from None


def _inputs(value: object, body: _Body, offset: int, memory: CallerMemory | None) -> tuple[Tensor, ...]:
    if value is None or value == []:
        state = "missing" if value is None else "empty"
        raise InvalidArgument(f"inputs is {state}; at least one tensor is expected", param="inputs")
    tensors: list[Tensor] = []
    start = offset
    for index, entry in enumerate(_entries(value, "inputs")):
        where = f"inputs[{index}]"
        name = fields.read_name(_member(entry, "name", where), f"{where}.name")
        tensor = f"input {fields.shown(name)}"
        datatype = fields.read_datatype(_member(entry, "datatype", where), f"{where}.datatype")
        shape = fields.read_shape(_member(entry, "shape", where), f"{where}.shape")
        at = f"{where}.parameters"
        parameters = fields.read_parameters(entry.get("parameters"), at)
        size = fields.read_size(parameters, "binary_data_size", at)
        if shared_memory.names_memory(parameters):
            if size is not None or "data" in entry:
                raise InvalidArgument(
                    f"{tensor} has {'data' if size is None else 'binary_data_size'} and is in shared memory; "
                    "send one of them",
                    param=where,
                )
            data = shared_memory.read_tensor(memory, parameters, datatype, shape, tensor, at)
        elif size is None:
            data = json_values.decode(_member(entry, "data", where), datatype, shape, tensor, f"{where}.data")
        else:
            if "data" in entry:
                raise InvalidArgument(
                    f"{tensor} has both data and binary_data_size; send one of them", param=where
                )
            if size > len(body) - start:
                raise InvalidArgument(
                    f"{tensor}: binary_data_size is {size}, but {len(body) - start} bytes of the body are "
                    "left after its JSON and earlier tensors",
                    param=f"{at}.binary_data_size",
                )
            data = raw.decode(body, start, size, datatype, shape, tensor, f"{at}.binary_data_size")
            start += size
        tensors.append(Tensor(name, datatype, data))
    if start != len(body):
        raise InvalidArgument(
            f"the binary inputs take {start - offset} bytes, but {len(body) - offset} bytes of the body "
            "follow its JSON",
            param="inputs",
        )
    return tuple(tensors)


def _outputs(value: object, memory: CallerMemory | None) -> tuple[RequestedOutput, ...]:
    if value is None:
        return ()
    requested = []
    for index, entry in enumerate(_entries(value, "outputs")):
        where = f"outputs[{index}]"
        parameters = fields.read_parameters(entry.get("parameters"), f"{where}.parameters")
        name = _member(entry, "name", where)
        requested.append(shared_memory.read_output(name, parameters, where, memory))
    return tuple(requested)


def _whole_body(body: _Body, inputs: Sequence[TensorSpec]) -> Tensor:
    """The tensor of a body without JSON: a single BYTES element, or one free size found from the length."""
    if len(inputs) != 1:
        raise InvalidArgument(
            f"{HEADER_LENGTH} is 0 (a body without JSON), which only a model with a single input can take; "
            f"this one has {fields.listed(spec.name for spec in inputs)}",
            param=HEADER_LENGTH,
        )
    spec = inputs[0]
    if spec.datatype is DataType.BYTES:
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        if element_count(shape) == 1:
            return Tensor.of_bytes(spec.name, [bytes(body)], shape)
    shape = _deduced(spec, len(body))
    data = raw.decode(body, 0, len(body), spec.datatype, shape, f"input {fields.shown(spec.name)}", "body")
    return Tensor(spec.name, spec.datatype, data)


def _deduced(spec: TensorSpec, size: int) -> tuple[int, ...]:
    free = [axis for axis, length in enumerate(spec.shape) if length == -1]
    itemsize = spec.datatype.itemsize
    if itemsize is None or len(free) > 1:
        raise InvalidArgument(
            f"{HEADER_LENGTH} is 0, but the shape {list(spec.shape)} of input {fields.shown(spec.name)} "
            "cannot be found from a body without JSON",
            param=HEADER_LENGTH,
        )
    row = itemsize * element_count(tuple(length for length in spec.shape if length != -1))
    return tuple((size // row if row else 0) if length == -1 else length for length in spec.shape)


def encode_response(response: InferResponse, request: InferRequest) -> Encoded:
    """Write the answer in the form that ``request`` asked for, output by output.

    An output is written to the shared memory that it was asked into; it is binary if its own ``binary_data``
    says so, else if ``binary_data_output`` of the request does. Raises InvalidArgument if an output has no
    JSON form and was not asked as binary, and as :func:`~nonet.runtime.oip.shared_memory.write_outputs`.
    """
    preference = request.parameters.get("binary_data_output") is True
    forms: dict[str, Parameter] = {
        output.name: output.parameters.get("binary_data", preference) for output in request.outputs
    }
    in_memory = shared_memory.write_outputs(response, request)
    outputs: list[dict[str, Any]] = []
    payload: list[bytes] = []
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype.value,
            "shape": list(tensor.shape),
        }
        if tensor.name in in_memory:
            # Triton's client in C++ reads no parameters of an output without this one.
            entry["parameters"] = in_memory[tensor.name] | {"binary_data_size": 0}
        elif forms.get(tensor.name, preference):
            payload.append(raw.encode(tensor.datatype, tensor.data))
            entry["parameters"] = {"binary_data_size": len(payload[-1])}
        else:
            entry["data"] = json_values.encode(tensor.datatype, tensor.data, tensor.name)
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id or request.id:
        document["id"] = response.id or request.id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    document["outputs"] = outputs
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not payload:
        return Encoded(head, None)
    return Encoded(b"".join((head, *payload)), len(head))
