"""What the core does to a request before it looks at it, and to an answer before it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nonet.runtime.errors import InvalidArgument, ModelOutputInvalid
from nonet.runtime.oip.classification import classify_output
from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.servable import ModelInfo

LOWEST_PRIORITY = 255
"""Priorities run from 0, the highest, to this."""

_OF_THE_PROTOCOL = frozenset({"binary_data_output", "binary_data_size", "timeout", "priority", "headers"})
"""Request parameters that say how to talk, not what to compute; they never reach a model or a cache key."""


def normalised(request: InferRequest, arrival: float) -> tuple[Mapping[str, Parameter], float | None, int]:
    """Parameters, deadline and priority of the request, with the protocol's own parameters taken out of the
    first and into the others: ``timeout`` (microseconds) and ``priority``."""
    parameters, deadline, priority = request.parameters, request.deadline, request.priority
    if not parameters or _OF_THE_PROTOCOL.isdisjoint(parameters):
        return parameters, deadline, priority
    # For the clients that send them, 0 means "not given", as it does for Triton.
    if timeout := _whole(parameters.get("timeout", 0), "timeout"):
        deadline = _earlier(deadline, arrival + timeout / 1e6)
    if wanted := _whole(parameters.get("priority", 0), "priority"):
        priority = min(wanted, LOWEST_PRIORITY)
    rest = {name: value for name, value in parameters.items() if name not in _OF_THE_PROTOCOL}
    return rest, deadline, priority


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
        try:
            tensor = response.output(wanted.name)
        except KeyError:
            raise ModelOutputInvalid(f"the model left out its output '{wanted.name}'") from None
        if wanted.classification:
            tensor = classify_output(tensor, wanted.classification, info.labels)
        outputs.append(tensor)
    return dataclasses.replace(response, outputs=tuple(outputs))
