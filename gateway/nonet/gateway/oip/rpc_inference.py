"""The gRPC call ``ModelInfer`` of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from typing import Any

from nonet.gateway.core.call_headers import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.model_names import checked_name
from nonet.gateway.grpc.rpc import Rpc
from nonet.runtime.oip import proto_codec
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo

__all__ = ["Inference"]

INLINE_CONTENTS = 256 * 1024
"""Bytes of typed contents above which a message is read in a thread."""

EMPTY_FINAL = "triton_enable_empty_final_response"
"""Parameter by which clients say how a stream is to be framed; no model sees it."""


class Inference:
    """One request in a message, and one answer.

    Args:
        plane: the core.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def admit(self, rpc: Rpc) -> AbstractContextManager[None]:
        """Let a call in before its message, which alone names the model; raises as the core's ``admit``."""
        call = rpc.read()
        return self._plane.admit(deadline=call.deadline, priority=call.priority)

    async def model_infer(self, request: Any, rpc: Rpc) -> Any:
        call = rpc.read()
        started = time.perf_counter()
        decoded = await self.decode(request, call)
        inferring = time.perf_counter()
        response = await self._plane.infer(decoded, admitted=True)
        inferred = time.perf_counter()
        rpc.model = response.model
        reply = proto_codec.encode_response(response, decoded)
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply

    def find(self, request: Any) -> ModelInfo:
        """The model that a message asks. Raises NotFound or Unavailable."""
        return self._plane.catalog.info(*checked_name(request.model_name, request.model_version))

    async def decode(self, request: Any, call: Call) -> InferRequest:
        """The message as the core's request, with what the metadata says of its handling.

        Raises InvalidArgument or NotFound, the latter before any tensor is touched.
        """
        self.find(request)
        request.parameters.pop(EMPTY_FINAL, None)
        if not request.raw_input_contents and request.ByteSize() > INLINE_CONTENTS:
            # Typed contents are read number by number: other requests go on meanwhile.
            decoded = await asyncio.to_thread(proto_codec.decode_request, request)
        else:
            decoded = proto_codec.decode_request(request)
        return call.applied_to(decoded)
