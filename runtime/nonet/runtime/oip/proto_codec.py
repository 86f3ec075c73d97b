"""The gRPC form of the Open Inference Protocol: ``inference.ModelInferRequest`` and its response.

Tensors come as raw contents (one entry per input that is not in shared memory, in order) or as typed contents
inside each input; never both. FP16 and BF16 have no typed form. Nonet itself always writes raw contents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nonet.runtime.errors import InvalidArgument, ModelOutputInvalid
from nonet.runtime.oip import fields, raw, shared_memory
from nonet.runtime.oip.messages import message
from nonet.runtime.oip.shared_memory import CallerMemory
from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.tensors import Array, DataType, Tensor

_INT64_MAX = (1 << 63) - 1
_CONTENTS: dict[DataType, str] = {
    DataType.BOOL: "bool_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}


def decode_request(msg: Any, memory: CallerMemory | None = None) -> InferRequest:
    """Read an ``inference.ModelInferRequest``; ``memory`` is the caller's shared memory, None where it is not
    served.

    Raises:
        InvalidArgument: naming the field at fault. Nothing else is ever raised for a bad message, but by
            ``memory``.
    """
    if not msg.inputs:
        raise InvalidArgument("inputs is empty; at least one tensor is expected", param="inputs")
    return InferRequest(
        model=fields.read_name(msg.model_name, "model_name"),
        inputs=_tensors(msg.inputs, msg.raw_input_contents, "input", memory),
        version=msg.model_version,
        outputs=tuple(
            shared_memory.read_output(
                output.name,
                _read_parameters(output.parameters, f"outputs[{index}].parameters"),
                f"outputs[{index}]",
                memory,
            )
            for index, output in enumerate(msg.outputs)
        ),
        parameters=_read_parameters(msg.parameters, "parameters"),
        id=msg.id,
    )


def bytes_in_memory(msg: Any) -> int:
    """Bytes that the inputs of an ``inference.ModelInferRequest`` take in shared memory, as it says."""
    name = shared_memory.SIZE
    sizes = [each.parameters[name] for each in msg.inputs if name in each.parameters]
    return sum(max(0, size.int64_param, size.uint64_param) for size in sizes)


def _tensors(
    entries: Sequence[Any], contents: Sequence[bytes], side: str, memory: CallerMemory | None = None
) -> tuple[Tensor, ...]:
    """The tensors of one message; ``side`` is ``input`` or ``output`` and names the fields in messages."""
    in_memory = [bool(entry.parameters) and shared_memory.names_memory(entry.parameters) for entry in entries]
    sent = len(entries) - sum(in_memory)
    if contents and len(contents) != sent:
        beside = " that are not in shared memory" if sent != len(entries) else ""
        raise InvalidArgument(
            f"raw_{side}_contents has {len(contents)} entries for {sent} {side}s{beside}",
            param=f"raw_{side}_contents",
        )
    left = enumerate(contents)
    tensors = []
    for index, entry in enumerate(entries):
        where = f"{side}s[{index}]"
        name = fields.read_name(entry.name, f"{where}.name")
        tensor = f"{side} {fields.shown(name)}"
        datatype = fields.read_datatype(entry.datatype, f"{where}.datatype")
        shape = fields.read_shape(list(entry.shape), f"{where}.shape")
        at = f"{where}.parameters"
        parameters = _read_parameters(entry.parameters, at) if entry.parameters else {}
        if (contents or in_memory[index]) and entry.contents.ByteSize():
            other = "is in shared memory" if in_memory[index] else f"the message has raw_{side}_contents too"
            raise InvalidArgument(
                f"{tensor} has contents, and {other}; send one of them", param=f"{where}.contents"
            )
        if in_memory[index]:
            data = shared_memory.read_tensor(memory, parameters, datatype, shape, tensor, at)
        elif not contents:
            data = _typed(entry.contents, datatype, shape, tensor, f"{where}.contents")
        else:
            place, octets = next(left)
            data = raw.decode(
                octets, 0, len(octets), datatype, shape, tensor, f"raw_{side}_contents[{place}]"
            )
        tensors.append(Tensor(name, datatype, data))
    return tuple(tensors)


def _typed(contents: Any, datatype: DataType, shape: tuple[int, ...], tensor: str, where: str) -> Array:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidArgument(f"{tensor}: {datatype} travels in raw_input_contents only", param=where)
    for used, _ in contents.ListFields():
        if used.name != field:
            raise InvalidArgument(
                f"{tensor}: {datatype} belongs in contents.{field}, not in contents.{used.name}", param=where
            )
    values = getattr(contents, field)
    fields.check_count(len(values), datatype, shape, tensor, where)
    if datatype is DataType.BYTES:
        array: Array = np.empty(len(values), dtype=object)
        array[:] = list(values)
    else:
        try:
            array = np.fromiter(values, datatype.numpy, len(values))
        except OverflowError:
            limits = np.iinfo(datatype.numpy)
            index = next(i for i, item in enumerate(values) if not limits.min <= item <= limits.max)
            raise InvalidArgument(
                f"{tensor}: {field}[{index}] is {values[index]}; {datatype} takes {limits.min} to "
                f"{limits.max}",
                param=where,
            ) from None
    array.flags.writeable = False
    return array.reshape(shape)


def _read_parameters(parameters: Mapping[str, Any], where: str) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(f"{where}.{fields.shown(name)} has no value", param=where)
        value = getattr(parameter, choice)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidArgument(f"{where}.{fields.shown(name)} must be finite, got {value}", param=where)
        found[name] = value
    return found


def _write_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif value > _INT64_MAX:
            target[name].uint64_param = value
        else:
            target[name].int64_param = value


def _write_tensors(entries: Any, contents: Any, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        entries.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        contents.append(raw.encode(tensor.datatype, tensor.data))


def encode_request(request: InferRequest) -> Any:
    """The ``inference.ModelInferRequest`` that :func:`decode_request` reads as an equal request.

    Deadline, priority, tenant and cache wishes are not part of the message; they travel beside it.
    """
    msg = message("inference.ModelInferRequest")(
        model_name=request.model, model_version=request.version, id=request.id
    )
    _write_parameters(msg.parameters, request.parameters)
    for output in request.outputs:
        entry = msg.outputs.add(name=output.name)
        _write_parameters(entry.parameters, output.parameters)
        if output.classification:
            entry.parameters["classification"].int64_param = output.classification
    _write_tensors(msg.inputs, msg.raw_input_contents, request.inputs)
    return msg


def encode_response(response: InferResponse, request: InferRequest) -> Any:
    """The ``inference.ModelInferResponse`` of an answer. ``request`` is what it answers: it has the id,
    should the answer carry none, and says which outputs are written to shared memory; those have an empty
    entry in ``raw_output_contents``. Raises as :func:`~nonet.runtime.oip.shared_memory.write_outputs`."""
    msg = message("inference.ModelInferResponse")(
        model_name=response.model, model_version=response.version, id=response.id or request.id
    )
    _write_parameters(msg.parameters, response.parameters)
    in_memory = shared_memory.write_outputs(response, request)
    for tensor in response.outputs:
        entry = msg.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        if tensor.name in in_memory:
            _write_parameters(entry.parameters, in_memory[tensor.name])
            msg.raw_output_contents.append(b"")
        else:
            msg.raw_output_contents.append(raw.encode(tensor.datatype, tensor.data))
    return msg


def decode_response(msg: Any) -> InferResponse:
    """Read an ``inference.ModelInferResponse`` of another server, raw or typed.

    Raises:
        ModelOutputInvalid: if the message contradicts itself or the protocol.
    """
    try:
        return InferResponse(
            model=msg.model_name,
            version=msg.model_version,
            outputs=_tensors(msg.outputs, msg.raw_output_contents, "output"),
            id=msg.id,
            parameters=_read_parameters(msg.parameters, "parameters"),
        )
    except InvalidArgument as error:
        raise ModelOutputInvalid(f"the service gave a malformed answer: {error.message}") from None
