"""An answer as the hot routes build it: no response objects, two ASGI messages."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from nonet.gateway.core.request_context import RawHeaders, RequestContext
from nonet.gateway.http.coding import encode, preferred
from nonet.gateway.http.problems import JSON

OCTETS = b"application/octet-stream"

# Below this, compressing on the event loop is cheaper than handing it to a thread.
_ENCODE_INLINE = 32 * 1024


@dataclasses.dataclass(slots=True)
class Reply:
    """Status, body, content type and further headers of an answer."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    headers: RawHeaders = dataclasses.field(default_factory=list)

    async def send(self, send: Send) -> None:
        """Put the reply on the wire."""
        headers = [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        """``value`` as JSON."""
        return cls(orjson.dumps(value), status)


class StreamedReply(Reply):
    """Bytes as they come. What fails before the first of them is still answered as an error.

    Args:
        headers: of the answer, all of them.
        pieces: none is empty; closed at the end.
        during: the block in which they are sent.
    """

    def __init__(
        self,
        headers: RawHeaders,
        pieces: AsyncGenerator[bytes, None],
        during: contextlib.AbstractContextManager[object] | None = None,
    ) -> None:
        super().__init__(headers=list(headers))
        self._pieces = pieces
        self._during = during or contextlib.nullcontext()

    async def send(self, send: Send) -> None:
        """Put the pieces on the wire as they come."""
        # Closed here, not by the garbage collector: who leaves while a piece is written withdraws the work.
        with self._during:
            async with contextlib.aclosing(self._pieces) as pieces:
                piece = await anext(pieces, b"")
                await send({"type": "http.response.start", "status": 200, "headers": self.headers})
                while piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    piece = await anext(pieces, b"")
                await send({"type": "http.response.body", "body": b""})


def raw_headers(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as they go on the wire."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def compressed(reply: Reply, context: RequestContext, smallest: int) -> Reply:
    """``reply`` in the coding the caller prefers, if it has ``smallest`` bytes or more.

    Libraries offer a list of codings by default; raw tensors hardly shrink, so those are compressed only for
    a caller who names exactly one coding, as ``tritonclient`` does when told to.
    """
    accept = context.headers.get(b"accept-encoding")
    if accept is None or len(reply.body) < smallest or (reply.content_type == OCTETS and b"," in accept):
        return reply
    coding = preferred(accept.decode("latin-1"))
    if coding:
        if len(reply.body) <= _ENCODE_INLINE:
            reply.body = encode(coding, reply.body)
        else:
            reply.body = await asyncio.to_thread(encode, coding, reply.body)
        reply.headers += [(b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")]
    return reply


class RawResponse(Response):
    """A :class:`Reply` as FastAPI wants to have it."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.status_code = reply.status
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._reply.send(send)
