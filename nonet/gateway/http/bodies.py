"""Request bodies: read whole, within limits that are checked before the bytes are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from nonet.gateway.http.coding import decode, normalise
from nonet.gateway.http.exchange import Exchange
from nonet.gateway.http.settings import HttpSettings
from nonet.runtime.errors import ClientClosed, PayloadTooLarge, Unavailable

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Below this, decoding on the event loop is cheaper than handing it to a thread.
_DECODE_INLINE = 16 * 1024


class Bodies:
    """Reads bodies and accounts for the memory all of them take together.

    Each request may hold ``max_body_bytes`` as sent and ``max_decoded_bytes`` decoded; all requests together
    may hold ``max_bodies_bytes``.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.held = 0

    def check_declared(self, exchange: Exchange) -> None:
        """Refuse by ``Content-Length`` alone. Raises PayloadTooLarge before anything is read."""
        declared = exchange.headers.get(b"content-length")
        if declared is not None and int(declared) > self._settings.max_body_bytes:
            raise self._too_large()

    async def read(self, exchange: Exchange, receive: Receive) -> bytes:
        """The whole body, decoded.

        Raises PayloadTooLarge over a limit, Unavailable when the bodies of all requests take too much,
        UnsupportedMediaType or InvalidArgument for its Content-Encoding, ClientClosed if the client leaves.
        """
        coding = normalise(exchange.header(b"content-encoding"))
        body = await self._collect(exchange, receive)
        exchange.received = True
        if not coding:
            return body
        limit = self._settings.max_decoded_bytes
        if len(body) < _DECODE_INLINE:
            # A small body may still be a bomb: what does not stay small is decoded in a thread.
            try:
                decoded = decode(coding, body, min(limit, 16 * _DECODE_INLINE))
            except PayloadTooLarge:
                decoded = await asyncio.to_thread(decode, coding, body, limit)
        else:
            decoded = await asyncio.to_thread(decode, coding, body, limit)
        self._hold(exchange, len(decoded))
        return decoded

    def release(self, exchange: Exchange) -> None:
        """The request is over; its body's memory is free."""
        self.held -= exchange.held
        exchange.held = 0

    async def _collect(self, exchange: Exchange, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientClosed("the client closed the connection")
        body: bytes = message.get("body", b"")
        self._hold(exchange, len(body))
        if not message.get("more_body", False):
            return body
        limit = self._settings.max_body_bytes
        pieces, total = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] != "http.request":
                raise ClientClosed("the client closed the connection")
            piece: bytes = message.get("body", b"")
            total += len(piece)
            if total > limit:
                raise self._too_large()
            self._hold(exchange, len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def _hold(self, exchange: Exchange, size: int) -> None:
        self.held += size
        exchange.held += size
        if self.held > self._settings.max_bodies_bytes:
            raise Unavailable(
                "too many bytes are being uploaded at the same time", code="UPLOADS_OVER_BUDGET"
            )

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the body is larger than {self._settings.max_body_bytes} bytes", code="BODY_TOO_LARGE"
        )
