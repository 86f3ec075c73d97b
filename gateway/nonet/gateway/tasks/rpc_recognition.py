"""``nonet.v1.Recognition``: the typed form of ``POST /v1/classify``, with the same answer."""

from __future__ import annotations

import time
from typing import Any

from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.tasks.classification import DEFAULT_TOP_K, MAX_TOP_K, TASK, best_classes
from nonet.runtime.errors import InvalidArgument
from nonet.runtime.oip.messages import message
from nonet.runtime.requests import InferRequest
from nonet.runtime.tensors import Tensor

__all__ = ["Recognition"]

_LONGEST_MODEL = 256


class Recognition:
    """The handlers of the service."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def classify(self, request: Any, rpc: Rpc) -> Any:
        """The most likely classes of one image. Raises ServingError."""
        call = rpc.read()
        started = time.perf_counter()
        top_k = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
        if not 1 <= top_k <= MAX_TOP_K:
            raise InvalidArgument(f"top_k must be between 1 and {MAX_TOP_K}, got {top_k}", param="top_k")
        if not request.image:
            raise InvalidArgument("image is empty; send the bytes of an image file", param="image")
        if len(request.model) > _LONGEST_MODEL:
            raise InvalidArgument(f"model has at most {_LONGEST_MODEL} characters", param="model")
        info = self._plane.choose(
            TASK, request.model or "auto", deadline=call.deadline, priority=call.priority
        )
        inferring = time.perf_counter()
        response = await self._plane.infer(
            InferRequest(
                model=info.name,
                version=info.version,
                inputs=(Tensor.of_bytes(info.inputs[0].name, [request.image]),),
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
        reply = message("nonet.v1.ClassifyResponse")(
            model=info.network or info.name,
            version=response.version,
            predictions=best_classes(response.outputs[0].data.reshape(-1), info.labels, top_k),
        )
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply
