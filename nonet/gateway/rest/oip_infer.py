"""``POST /v2/models/{model}[/versions/{version}]/infer``: the hot path."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from typing import TYPE_CHECKING

from nonet.gateway.core import DataPlane
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.exchange import Exchange
from nonet.gateway.rest.calling import CallReader, answer_headers
from nonet.gateway.rest.reply import OCTETS, Reply
from nonet.runtime.errors import InvalidArgument, Unavailable, UnsupportedMediaType
from nonet.runtime.oip.json_codec import Encoded, decode_request, encode_response
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

if TYPE_CHECKING:
    from nonet.gateway.rest.oip_routes import OipTarget

HEADER_LENGTH = b"inference-header-content-length"

# JSON and outputs above this are read and written in a thread, so that other requests go on meanwhile.
_INLINE_JSON = 1024 * 1024

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


def check_content_type(exchange: Exchange) -> None:
    """Raises UnsupportedMediaType for a type that is neither JSON, octets nor what curl sends by default."""
    content_type = exchange.headers.get(b"content-type")
    if content_type is None or content_type.partition(b";")[0].strip().lower() in _SPOKEN:
        return
    raise UnsupportedMediaType(
        "send application/json, or application/octet-stream with binary tensor data, "
        f"not {exchange.header(b'content-type')[:80]!r}",
        param="Content-Type",
    )


class OipInference:
    """Inference over REST.

    Args:
        plane: the core.
        calls: reads what the headers say.
        bodies: reads bodies within their limits.
    """

    def __init__(self, plane: DataPlane, calls: CallReader, bodies: Bodies) -> None:
        self._plane = plane
        self._calls = calls
        self._bodies = bodies

    async def infer(self, target: OipTarget) -> Reply:
        """One inference. Raises every ServingError of the failure model."""
        exchange = target.exchange
        call = self._calls.read(exchange)
        if not self._plane.accepting:
            raise Unavailable("the server is draining; try another one", code="DRAINING")
        # Known before the body is read: an unknown model costs no upload.
        info = self._plane.catalog.info(target.model, target.version)
        check_content_type(exchange)
        header_length = _header_length(exchange)
        body = await self._bodies.read(exchange, target.receive)
        self._calls.in_time(call)

        start = time.perf_counter()
        request = await _decode(body, info, target.version, header_length)
        request = dataclasses.replace(
            request,
            deadline=call.deadline,
            priority=call.priority,
            tenant=call.tenant,
            use_cache=call.use_cache,
            store_in_cache=call.store_in_cache,
        )
        decoded = time.perf_counter()
        response = await self._plane.infer(request)
        inferred = time.perf_counter()
        encoded = await _encode(response, request)
        done = time.perf_counter()

        headers = answer_headers(response, decoded - start, done - inferred)
        if encoded.header_length is None:
            return Reply(encoded.body, headers=headers)
        headers.append((HEADER_LENGTH, b"%d" % encoded.header_length))
        return Reply(encoded.body, content_type=OCTETS, headers=headers)


async def _decode(body: bytes, info: ModelInfo, version: str, header_length: int | None) -> InferRequest:
    decode = functools.partial(
        decode_request,
        body,
        model=info.name,
        version=version,
        header_length=header_length,
        inputs=info.inputs,
    )
    if (len(body) if header_length is None else header_length) <= _INLINE_JSON:
        return decode()
    return await asyncio.to_thread(decode)


async def _encode(response: InferResponse, request: InferRequest) -> Encoded:
    if sum(tensor.data.nbytes for tensor in response.outputs) <= _INLINE_JSON:
        return encode_response(response, request)
    return await asyncio.to_thread(encode_response, response, request)


def _header_length(exchange: Exchange) -> int | None:
    value = exchange.headers.get(HEADER_LENGTH)
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
