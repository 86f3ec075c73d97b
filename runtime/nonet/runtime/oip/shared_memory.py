"""Tensors in shared memory: which range of which region a request names, and the parameters that name it.

The codecs read and write such tensors through :class:`CallerMemory`; who registers regions, and checks them,
is the server's matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip import fields, raw
from nonet.runtime.requests import InferRequest, InferResponse, OutputMemory, Parameter, RequestedOutput
from nonet.runtime.tensors import Array, DataType

__all__ = ["CallerMemory", "MemoryRange", "names_memory", "read_output", "read_tensor", "write_outputs"]

_REGION = "shared_memory_region"
_OFFSET = "shared_memory_offset"
SIZE = "shared_memory_byte_size"
"""The parameter that says how many bytes."""
_PARAMETERS = frozenset({_REGION, _OFFSET, SIZE})
_TAKEN_OUT = _PARAMETERS | {"classification"}


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryRange:
    """Where a tensor lies.

    Args:
        region: name under which the region was registered.
        offset: bytes from the beginning of the region, >= 0.
        size: bytes, >= 0; of an output, those that it may take.
        tensor: the tensor, as messages name it.
        where: the parameters that say all this, as messages name them.
    """

    region: str
    offset: int
    size: int
    tensor: str
    where: str


class CallerMemory(Protocol):
    """The shared memory that the caller of one request may use."""

    def read(self, wanted: MemoryRange) -> memoryview:
        """A copy of the range, which nobody else can change. Raises ServingError if there is no such range,
        or if the request has taken too much."""

    def output(self, wanted: MemoryRange) -> OutputMemory:
        """The range as the place of an output. Raises NotFound or InvalidArgument if there is none."""


def names_memory(parameters: Mapping[str, object]) -> bool:
    """Whether the parameters of a tensor say anything of shared memory."""
    return not _PARAMETERS.isdisjoint(parameters)


def _range(parameters: Mapping[str, Parameter], tensor: str, where: str) -> MemoryRange:
    """The range that the parameters of a tensor name. Raises InvalidArgument if they do not."""
    region = fields.read_name(parameters.get(_REGION), f"{where}.{_REGION}")
    size = fields.read_size(parameters, SIZE, where)
    if size is None:
        raise InvalidArgument(f"{tensor}: {SIZE} is missing beside {_REGION}", param=f"{where}.{SIZE}")
    return MemoryRange(region, fields.read_size(parameters, _OFFSET, where) or 0, size, tensor, where)


def _served(memory: CallerMemory | None, tensor: str, where: str) -> CallerMemory:
    """The memory. Raises InvalidArgument where the server offers none."""
    if memory is None:
        raise InvalidArgument(
            f"{tensor}: shared memory is not available here; send the data in the request",
            param=f"{where}.{_REGION}",
        )
    return memory


def read_tensor(
    memory: CallerMemory | None,
    parameters: Mapping[str, Parameter],
    datatype: DataType,
    shape: tuple[int, ...],
    tensor: str,
    where: str,
) -> Array:
    """The input that the parameters name, copied, read-only.

    Raises InvalidArgument if the range cannot hold ``shape``, before anything is copied where the type says
    so, and as :func:`raw.decode` and :meth:`CallerMemory.read`.
    """
    served = _served(memory, tensor, where)
    wanted = _range(parameters, tensor, where)
    at = f"{where}.{SIZE}"
    raw.check_size(wanted.size, datatype, shape, tensor, at)
    return raw.decode(served.read(wanted), 0, wanted.size, datatype, shape, tensor, at)


def read_output(
    name: object, parameters: Mapping[str, Parameter], where: str, memory: CallerMemory | None
) -> RequestedOutput:
    """One requested output: ``classification`` and its place in shared memory are taken out of its
    parameters, the rest stays."""
    checked = fields.read_name(name, f"{where}.name")
    if not parameters:
        return RequestedOutput(checked)
    at = f"{where}.parameters"
    fields.read_flag(parameters, "binary_data", at)
    place = None
    if names_memory(parameters):
        tensor = f"output {fields.shown(checked)}"
        place = _served(memory, tensor, at).output(_range(parameters, tensor, at))
    classes = fields.read_size(parameters, "classification", at) or 0
    rest = {key: value for key, value in parameters.items() if key not in _TAKEN_OUT}
    return RequestedOutput(checked, classes, rest, place)


def write_outputs(response: InferResponse, request: InferRequest) -> dict[str, dict[str, Parameter]]:
    """Write the outputs that ``request`` wants in shared memory; what is to be said of each, by its name.

    Raises InvalidArgument if one does not fit, before any is written, and as :meth:`OutputMemory.write`.
    """
    places = {output.name: output.memory for output in request.outputs if output.memory is not None}
    if not places:
        return {}
    data = {
        tensor.name: raw.encode(tensor.datatype, tensor.data)
        for tensor in response.outputs
        if tensor.name in places
    }
    for name, content in data.items():
        places[name].check(len(content))
    said: dict[str, dict[str, Parameter]] = {}
    for name, content in data.items():
        place = places[name]
        place.write(content)
        said[name] = {_REGION: place.region, SIZE: len(content)}
        if place.offset:
            said[name][_OFFSET] = place.offset
    return said
