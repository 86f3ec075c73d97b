"""What the core does to a request before it looks at it, and to an answer before it leaves."""

from __future__ import annotations

import dataclasses

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.classification import classify_output
from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.servable import ModelInfo

_OF_THE_PROTOCOL = frozenset({"binary_data_output", "binary_data_size", "timeout", "priority", "headers"})
"""Request parameters that say how to talk, not what to compute; they never reach a model or a cache key."""


def normalised(request: InferRequest, arrival: float) -> InferRequest:
    """Take the protocol's own parameters out of the request: ``timeout`` (microseconds) and ``priority``."""
    parameters = request.parameters
    if _OF_THE_PROTOCOL.isdisjoint(parameters):
        return request
    deadline, priority = request.deadline, request.priority
    if "timeout" in parameters:
        deadline = _earlier(deadline, arrival + _whole(parameters["timeout"], "timeout") / 1e6)
    if "priority" in parameters:
        priority = _whole(parameters["priority"], "priority")
    rest = {name: value for name, value in parameters.items() if name not in _OF_THE_PROTOCOL}
    return dataclasses.replace(request, parameters=rest, deadline=deadline, priority=priority)


def _earlier(deadline: float | None, other: float) -> float:
    return other if deadline is None else min(deadline, other)


def _whole(value: Parameter, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise InvalidArgument(
            f"parameters.{name} must be a non-negative integer, got {value!r:.40}", param=f"parameters.{name}"
        )
    return value


def selected(response: InferResponse, request: InferRequest, info: ModelInfo) -> InferResponse:
    """Only the outputs asked for, in the order asked, as classes where the caller wants classes."""
    if not request.outputs:
        return response
    outputs = []
    for wanted in request.outputs:
        tensor = response.output(wanted.name)
        if wanted.classification:
            tensor = classify_output(tensor, wanted.classification, info.labels)
        outputs.append(tensor)
    return dataclasses.replace(response, outputs=tuple(outputs))
