"""A request against the model it asks for, before any work; an answer against the model that gave it.

The codecs make sure that a tensor's data fills its shape. Here the tensors meet the model: names, types,
shapes, batch sizes, finite numbers, requested outputs. Every message names the field, what came and what
the model takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from nonet.runtime.errors import InvalidArgument, ModelOutputInvalid
from nonet.runtime.oip.fields import listed, shown
from nonet.runtime.oip.finite import is_finite
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor, TensorSpec


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def validate(request: InferRequest, info: ModelInfo) -> InferRequest:
    """The request as the model described by ``info`` takes it.

    An input that has the dimension of the batch alone may come as [N] or, as metadata shows it, as [N, 1].

    Raises:
        InvalidArgument: duplicate, unknown or missing inputs; wrong data type or shape; an empty or too large
            batch, or inputs that disagree about its size; NaN or infinity unless the model allows them;
            duplicate or unknown requested outputs; classes asked of an output that has none.
    """
    if info.max_batch_size > 0 and any(tensor.shape[1:] == (1,) for tensor in request.inputs):
        request = dataclasses.replace(request, inputs=_without_columns(request.inputs, info))
    _check_inputs(request, info)
    if request.outputs:
        _check_requested(request, info)
    return request


def _without_columns(inputs: Sequence[Tensor], info: ModelInfo) -> tuple[Tensor, ...]:
    """The inputs, those of one column as rows where the model knows no columns."""
    rows = {spec.name for spec in info.inputs if len(spec.shape) == 1}
    return tuple(
        Tensor(each.name, each.datatype, each.data.reshape(-1))
        if each.name in rows and each.shape[1:] == (1,)
        else each
        for each in inputs
    )


def _specs(specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _refuse_duplicates(side: str, items: Sequence[_Named]) -> None:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.name in seen:
            raise InvalidArgument(
                f"{side} {shown(item.name)} is given more than once", param=f"{side}s[{index}].name"
            )
        seen.add(item.name)


def _check_inputs(request: InferRequest, info: ModelInfo) -> None:
    if not request.inputs:
        raise InvalidArgument("inputs is empty; at least one tensor is expected", param="inputs")
    _refuse_duplicates("input", request.inputs)
    specs = _specs(info.inputs)
    for index, tensor in enumerate(request.inputs):
        spec = specs.get(tensor.name)
        if spec is None:
            raise InvalidArgument(
                f"unknown input {shown(tensor.name)}; model '{info.name}' takes {listed(specs)}",
                param=f"inputs[{index}].name",
            )
        _check_input(tensor, spec, info, f"inputs[{index}]")
    given = {tensor.name for tensor in request.inputs}
    missing = [spec.name for spec in info.inputs if not spec.optional and spec.name not in given]
    if missing:
        raise InvalidArgument(f"inputs: {listed(missing)} is missing", param="inputs")
    if info.max_batch_size > 0:
        _check_batch(request.inputs, info)


def _input(tensor: Tensor) -> str:
    return f"input {shown(tensor.name)}"


def _check_input(tensor: Tensor, spec: TensorSpec, info: ModelInfo, where: str) -> None:
    if tensor.datatype is not spec.datatype:
        raise InvalidArgument(
            f"{_input(tensor)} expects {spec.datatype}, got {tensor.datatype}", param=f"{where}.datatype"
        )
    if not spec.admits(tensor.shape):
        raise InvalidArgument(
            f"{_input(tensor)} expects shape {list(spec.shape)} (-1 is any size), got {list(tensor.shape)}",
            param=f"{where}.shape",
        )
    if spec.shape and spec.shape[0] == -1 and tensor.shape[0] == 0:
        raise InvalidArgument(
            f"{_input(tensor)} has shape {list(tensor.shape)}, an empty batch; "
            "the first size must be at least 1",
            param=f"{where}.shape",
        )
    if not info.allow_nonfinite and not is_finite(tensor):
        raise InvalidArgument(
            f"{_input(tensor)} holds NaN or infinity; model '{info.name}' takes finite numbers only",
            param=where,
            code="NONFINITE_INPUT",
        )


def _check_batch(inputs: Sequence[Tensor], info: ModelInfo) -> None:
    rows = inputs[0].shape[0]
    for index, tensor in enumerate(inputs):
        if tensor.shape[0] != rows:
            raise InvalidArgument(
                f"input {shown(tensor.name)} has a batch of {tensor.shape[0]}, "
                f"input {shown(inputs[0].name)} one of {rows}; they must be equal",
                param=f"inputs[{index}].shape",
            )
    if rows > info.max_batch_size:
        raise InvalidArgument(
            f"a batch of {rows} is more than the {info.max_batch_size} that model '{info.name}' takes "
            "at once",
            param="inputs[0].shape",
        )


def _check_requested(request: InferRequest, info: ModelInfo) -> None:
    _refuse_duplicates("output", request.outputs)
    specs = _specs(info.outputs)
    for index, output in enumerate(request.outputs):
        spec = specs.get(output.name)
        if spec is None:
            raise InvalidArgument(
                f"unknown output {shown(output.name)}; model '{info.name}' gives {listed(specs)}",
                param=f"outputs[{index}].name",
            )
        if output.classification and (spec.datatype in (DataType.BYTES, DataType.BOOL) or not spec.shape):
            raise InvalidArgument(
                f"output {shown(output.name)} is {spec.datatype} of shape {list(spec.shape)}; "
                "classification needs a vector of numbers",
                param=f"outputs[{index}].parameters.classification",
            )


def check_outputs(response: InferResponse, info: ModelInfo) -> None:
    """Whether an answer is what the model promises: known outputs of its types and shapes, finite numbers.

    Raises:
        ModelOutputInvalid: naming the output. A wrong answer is a failure, never passed on.
    """
    specs: Mapping[str, TensorSpec] = _specs(info.outputs)
    for tensor in response.outputs:
        spec = specs.get(tensor.name)
        if spec is None:
            fault = f"is not one the model declares: {listed(specs)}"
        elif tensor.datatype is not spec.datatype:
            fault = f"should be {spec.datatype}, but came as {tensor.datatype}"
        elif not spec.admits(tensor.shape):
            fault = f"should have shape {list(spec.shape)}, but came with {list(tensor.shape)}"
        elif not info.allow_nonfinite and not is_finite(tensor):
            fault = "holds NaN or infinity"
        else:
            continue
        raise ModelOutputInvalid(f"output {shown(tensor.name)} of model '{info.name}' {fault}")
