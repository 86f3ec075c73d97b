"""Inference over REST: ``POST /v2/models/{model}[/versions/{version}]/infer``."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time

from starlette.types import Receive

from nonet.gateway.core.call_headers import CallReader, answer_headers
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.core.shared_memory import SharedMemory, TenantMemory
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.reply import OCTETS, Reply
from nonet.gateway.oip.operations import Asked
from nonet.runtime.errors import InvalidArgument, UnsupportedMediaType
from nonet.runtime.oip.json_codec import Encoded, decode_request, encode_response
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

HEADER_LENGTH = b"inference-header-content-length"

# JSON and outputs above this are read and written in a thread, so that other requests go on meanwhile.
_INLINE_JSON = 1024 * 1024
_REGION = b"shared_memory_region"
# What clients send for JSON and for tensors: browsers and curl name other types by default.
_SPOKEN = frozenset(
    {
        b"",
        b"application/json",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",
        b"application/vnd.kserve+json",
        b"text/json",
        b"text/plain",
    }
)


@dataclasses.dataclass(slots=True, eq=False)
class OipInference:
    """Inference over REST.

    Args:
        plane: the core.
        calls: reads what the headers say.
        bodies: reads bodies within their limits.
        memory: the shared memory regions, None where there are none.
    """

    plane: DataPlane
    calls: CallReader
    bodies: Bodies
    memory: SharedMemory | None

    def check(self, named: Asked, context: RequestContext, query: bytes) -> None:
        """Raises what an inference is refused with by its headers: who, quota, queue, deadline."""
        call = self.calls.read(context)
        self.plane.check("", named.model, named.version, call.deadline, call.priority, call.caller)

    async def infer(self, context: RequestContext, receive: Receive, named: Asked) -> Reply:
        """One inference. Raises every ServingError of the failure model."""
        call = self.calls.read(context)
        # Let in or refused with its headers; an upload that is under way when the server is told to stop is
        # finished.
        with self.plane.admit(
            model=named.model,
            version=named.version,
            deadline=call.deadline,
            priority=call.priority,
            caller=call.caller,
        ):
            # Known before the body is read: an unknown model costs no upload.
            info = self.plane.catalog.info(named.model, named.version)
            check_content_type(context)
            header_length = _header_length(context)
            body: bytes | memoryview
            if header_length is None:
                body = await self.bodies.read(context, receive)
            else:
                body = await self.bodies.read_aligned(context, receive, header_length)
            self.calls.in_time(call)

            start = time.perf_counter()
            memory = None
            if self.memory is not None and context.hold is not None:
                memory = self.memory.of(call.tenant, context.hold)
            request = await _decode(body, info, named.version, header_length, memory)
            request = dataclasses.replace(request, **call.handling())
            decoded = time.perf_counter()
            response = await self.plane.infer(request, admitted=True)
            inferred = time.perf_counter()
            encoded = await _encode(response, request)
            done = time.perf_counter()

        headers = answer_headers(response, decoded - start, done - inferred)
        if encoded.header_length is None:
            return Reply(encoded.body, headers=headers)
        headers.append((HEADER_LENGTH, b"%d" % encoded.header_length))
        return Reply(encoded.body, content_type=OCTETS, headers=headers)


async def _decode(
    body: bytes | memoryview,
    info: ModelInfo,
    version: str,
    header_length: int | None,
    memory: TenantMemory | None,
) -> InferRequest:
    decode = functools.partial(
        decode_request,
        body,
        model=info.name,
        version=version,
        header_length=header_length,
        inputs=info.inputs,
        memory=memory,
    )
    length = len(body) if header_length is None else header_length
    # What little JSON names in shared memory may be large.
    if length <= _INLINE_JSON and (memory is None or _REGION not in bytes(body[:length])):
        return decode()
    return await asyncio.to_thread(decode)


async def _encode(response: InferResponse, request: InferRequest) -> Encoded:
    if sum(tensor.data.nbytes for tensor in response.outputs) <= _INLINE_JSON:
        return encode_response(response, request)
    return await asyncio.to_thread(encode_response, response, request)


def check_content_type(context: RequestContext) -> None:
    """Raises UnsupportedMediaType for a type that is neither JSON, octets nor what curl sends by default."""
    content_type = context.headers.get(b"content-type")
    if content_type is None or content_type.partition(b";")[0].strip().lower() in _SPOKEN:
        return
    raise UnsupportedMediaType(
        "send application/json, or application/octet-stream with binary tensor data, "
        f"not {context.header(b'content-type')[:80]!r}",
        param="Content-Type",
    )


def _header_length(context: RequestContext) -> int | None:
    value = context.headers.get(HEADER_LENGTH)
    if value is None:
        return None
    text = value.strip()
    if not text.isdigit() or len(text) > 18:
        raise InvalidArgument(
            "Inference-Header-Content-Length must be a non-negative integer, "
            f"got {value[:40].decode('latin-1')!r}",
            param="Inference-Header-Content-Length",
        )
    return int(text)
