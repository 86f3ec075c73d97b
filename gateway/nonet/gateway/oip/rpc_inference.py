"""``inference.GRPCInferenceService``: health, metadata, configuration, statistics and single inference.

Streaming, the repository and the settings of a Triton server are in modules of their own.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from typing import Any

from nonet.gateway.core.call_headers import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.model_names import is_name
from nonet.gateway.executor import description
from nonet.gateway.grpc.rpc import Rpc
from nonet.gateway.oip.models import configuration, described, statistics
from nonet.runtime.errors import NotFound
from nonet.runtime.oip import metadata, proto_codec
from nonet.runtime.oip.messages import message
from nonet.runtime.release import VERSION
from nonet.runtime.requests import InferRequest, InferResponse

__all__ = ["Inference", "checked_name"]

INLINE_CONTENTS = 256 * 1024
"""Bytes of typed contents above which a message is read in a thread."""

STREAM_PARAMETERS = ("triton_enable_empty_final_response",)
"""Parameters that clients add to say how a stream is to be framed; no model sees them."""


class Inference:
    """The handlers that read: what is there, and the answer to one request.

    Args:
        plane: the core.
        describe_models: whether a model's configuration carries the description that a gateway needs to use
            this process as a remote service.
    """

    def __init__(self, plane: DataPlane, *, describe_models: bool = False) -> None:
        self._plane = plane
        self._describe_models = describe_models

    async def server_live(self, request: Any, rpc: Rpc) -> Any:
        return message("inference.ServerLiveResponse")(live=self._plane.live())

    async def server_ready(self, request: Any, rpc: Rpc) -> Any:
        return message("inference.ServerReadyResponse")(ready=self._plane.ready())

    async def model_ready(self, request: Any, rpc: Rpc) -> Any:
        """Whether a version would be served now. One that nobody knows is not ready, as with Triton."""
        rpc.authenticate()
        try:
            ready = self._plane.model_ready(*checked_name(request.name, request.version))
        except NotFound:
            ready = False
        return message("inference.ModelReadyResponse")(ready=ready)

    async def server_metadata(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        return metadata.server_metadata_proto(VERSION)

    async def model_metadata(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        name, version = checked_name(request.name, request.version)
        return metadata.model_metadata_proto(*described(self._plane, name, version))

    async def model_config(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        info = self._plane.catalog.info(*checked_name(request.name, request.version))
        config = metadata.model_config_proto(configuration(self._plane, info))
        if self._describe_models:
            config.parameters[description.PARAMETER].string_value = description.to_json(info)
        return message("inference.ModelConfigResponse")(config=config)

    async def model_statistics(self, request: Any, rpc: Rpc) -> Any:
        rpc.authenticate()
        if request.name:
            checked_name(request.name, request.version)
        found = statistics(self._plane, request.name, request.version)
        return message("inference.ModelStatisticsResponse")(model_stats=found)

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

    async def infer_one(self, request: Any, call: Call) -> tuple[InferRequest, InferResponse]:
        """One request of a stream, let in, decoded and answered. Raises ServingError."""
        with self._plane.admit():
            decoded = await self.decode(request, call)
            return decoded, await self._plane.infer(decoded, admitted=True)

    async def decode(self, request: Any, call: Call) -> InferRequest:
        """The message as the core's request, with what the metadata says of its handling.

        Raises InvalidArgument or NotFound, the latter before any tensor is touched.
        """
        self._plane.catalog.info(*checked_name(request.model_name, request.model_version))
        for name in STREAM_PARAMETERS:
            if name in request.parameters:
                del request.parameters[name]
        if not request.raw_input_contents and request.ByteSize() > INLINE_CONTENTS:
            # Typed contents are read number by number: other requests go on meanwhile.
            decoded = await asyncio.to_thread(proto_codec.decode_request, request)
        else:
            decoded = proto_codec.decode_request(request)
        return call.applied_to(decoded)


def checked_name(name: str, version: str = "") -> tuple[str, str]:
    """Name and version of a model. Raises NotFound, with the text made harmless, if one cannot be one."""
    for text, kind in ((name, "model"), (version, "version")):
        if (text or kind == "model") and not is_name(text):
            raise NotFound(f"unknown {kind} {text[:80]!r}", param=kind, code=f"{kind.upper()}_NOT_FOUND")
    return name, version
