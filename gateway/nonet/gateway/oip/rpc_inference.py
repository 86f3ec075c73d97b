"""The gRPC call ``ModelInfer`` of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from contextlib import AbstractContextManager
from typing import Any

from nonet.gateway.core.call import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.shared_memory import SharedMemory
from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.oip.operations import checked_name
from nonet.runtime.oip import proto_codec
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

INLINE_CONTENTS = 256 * 1024
"""Bytes of typed contents, or in shared memory, above which a message is read or written in a thread."""

EMPTY_FINAL = "triton_enable_empty_final_response"
"""Parameter by which clients say how a stream is to be framed; no model sees it."""


class Inference:
    """One request in a message, and one answer.

    Args:
        plane: the core.
        uploads: accounts for what is copied from shared memory.
        memory: the shared memory regions, None where there are none.
    """

    def __init__(self, plane: DataPlane, uploads: UploadBudget, memory: SharedMemory | None) -> None:
        self._plane = plane
        self._uploads = uploads
        self._memory = memory

    def admit(self, rpc: Rpc) -> AbstractContextManager[None]:
        """Let a call in before its message, which alone names the model; raises as the core's ``admit``."""
        call = rpc.read()
        return self._plane.admit(deadline=call.deadline, priority=call.priority, caller=call.caller)

    async def model_infer(self, request: Any, rpc: Rpc) -> Any:
        call = rpc.read()
        started = time.perf_counter()
        with self._uploads.open() as hold:
            decoded = await self.decode(request, call, hold)
            inferring = time.perf_counter()
            response = await self._plane.infer(decoded, admitted=True)
            inferred = time.perf_counter()
            rpc.model = response.model
            reply = await encode(response, decoded)
        rpc.describe_answer(response, inferring - started, time.perf_counter() - inferred)
        return reply

    def find(self, request: Any) -> ModelInfo:
        """The model that a message asks. Raises NotFound or Unavailable."""
        return self._plane.catalog.info(*checked_name(request.model_name, request.model_version))

    async def decode(self, request: Any, call: Call, hold: Hold) -> InferRequest:
        """The message as the core's request, with what the metadata says of its handling; what is copied from
        shared memory is entered in ``hold``.

        Raises InvalidArgument or NotFound, the latter before any tensor is touched, and what shared memory
        raises.
        """
        self.find(request)
        request.parameters.pop(EMPTY_FINAL, None)
        memory = None if self._memory is None else self._memory.of(call.tenant, hold)
        typed = not request.raw_input_contents and request.ByteSize() > INLINE_CONTENTS
        if typed or (memory is not None and proto_codec.bytes_in_memory(request) > INLINE_CONTENTS):
            # Typed contents are read number by number, and what is in shared memory is copied: other
            # requests go on meanwhile.
            decoded = await asyncio.to_thread(proto_codec.decode_request, request, memory)
        else:
            decoded = proto_codec.decode_request(request, memory)
        return dataclasses.replace(decoded, **call.handling())


async def encode(response: InferResponse, request: InferRequest) -> Any:
    """The answer as a message; what is large and goes to shared memory is written in a thread."""
    large = sum(tensor.nbytes for tensor in response.outputs) > INLINE_CONTENTS
    if not large or all(output.memory is None for output in request.outputs):
        return proto_codec.encode_response(response, request)
    return await asyncio.to_thread(proto_codec.encode_response, response, request)
