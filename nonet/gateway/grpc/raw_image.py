"""``nonet.v1.RawImage``: the typed form of ``POST /v1/raw/develop``, with the same answer."""

from __future__ import annotations

import math
import time
from typing import Any

import orjson

from nonet.gateway.core import DataPlane
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.raw_development import TASK
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest, Parameter
from nonet.runtime.tensors import Tensor

__all__ = ["RawImage"]

_LONGEST_TEXT = 256
_TEXTS = ("cfa", "output", "render", "white_balance")
_NUMBERS = ("white_level", "width", "height", "noise")
_LISTS = ("black_level", "camera_matrix")


class RawImage:
    """The handlers of the service."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def develop(self, request: Any, rpc: Rpc) -> Any:
        """The picture of one capture. Raises ServingError."""
        call = rpc.read()
        started = time.perf_counter()
        if not request.raw:
            raise InvalidArgument("raw is empty; send the bytes of a capture", param="raw", code="RAW_EMPTY")
        parameters = _parameters(request)
        info = self._plane.choose(
            TASK, request.model or "auto", deadline=call.deadline, priority=call.priority
        )
        inferring = time.perf_counter()
        response = await self._plane.infer(
            InferRequest(
                model=info.name,
                version=info.version,
                inputs=(Tensor.of_bytes(info.inputs[0].name, [request.raw]),),
                parameters=parameters,
                deadline=call.deadline,
                priority=call.priority,
                tenant=call.tenant,
                use_cache=call.use_cache,
                store_in_cache=call.store_in_cache,
            ),
            admitted=True,
        )
        inferred = time.perf_counter()
        rpc.model = response.model
        facts = orjson.loads(response.output("details").data[0])
        reply = message("nonet.v1.DevelopResponse")(
            model=info.network or info.name,
            version=response.version,
            picture=response.output("picture").data[0],
            content_type=facts["content_type"],
            width=facts["width"],
            height=facts["height"],
            noise_sigma=facts["noise"]["sigma"] if facts["noise"]["known"] else None,
            white_balance=facts.get("white_balance", ()),
            std_scale=facts.get("std_scale"),
        )
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply


def _parameters(request: Any) -> dict[str, Parameter]:
    """The service's parameters; what is unset or empty is left out. Raises InvalidArgument."""
    for name in ("model", *_TEXTS):
        if len(getattr(request, name)) > _LONGEST_TEXT:
            raise InvalidArgument(f"{name} has at most {_LONGEST_TEXT} characters", param=name)
    parameters: dict[str, Parameter] = {
        name: getattr(request, name) for name in _TEXTS if getattr(request, name)
    }
    for name in _NUMBERS:
        if request.HasField(name):
            parameters[name] = getattr(request, name)
    for name in _LISTS:
        values = list(getattr(request, name))
        if len(values) > 16 or not all(map(math.isfinite, values)):
            raise InvalidArgument(f"{name} must be a few finite numbers", param=name)
        if values:
            parameters[name] = ",".join(map(repr, values))
    if request.uncertainty:
        parameters["uncertainty"] = True
    return parameters
