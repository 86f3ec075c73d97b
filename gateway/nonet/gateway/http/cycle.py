"""One request and its answer on a connection: uvicorn's cycle, with fewer copies and fewer system calls.

Bodies stay in the pieces in which they arrived until somebody reads them, and the head of an answer leaves
together with its body: two writes are two packets, two wake-ups of the client and twice the kernel's work.
"""

from __future__ import annotations

import asyncio
import functools
import urllib.parse
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from nonet.gateway.core.request_context import RequestContext

_JOIN_BELOW = 64 * 1024
"""Bytes of a body below which copying it behind its head is cheaper than a second write."""

_WITHOUT_BODY = frozenset({204, 304})


class Cycle(RequestResponseCycle):
    """See the module's text.

    Attributes:
        unread: bytes of the body that have arrived and that the application has not taken yet.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._pieces: list[bytes] = []
        self._head = b""
        self.unread = 0

    def feed(self, piece: bytes) -> None:
        """A piece of the body has arrived."""
        self._pieces.append(piece)
        self.unread += len(piece)
        self.message_event.set()

    async def receive(self) -> Any:
        """ASGI's receive: what has arrived since the last call."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces, self.unread = self._pieces, [], 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """ASGI's send."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if self.response_complete or message["type"] != expected:
            raise RuntimeError(f"the application sent {message['type']!r} out of turn")
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], message.get("headers", ()))
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _head_of(self, status: int, headers: Any) -> bytes:
        """Status line and headers; learns from them how the body is framed."""
        lines = [STATUS_LINE[status]]
        values = []
        closing = False
        for name, value in (*self.default_headers, *headers):
            field = _field(name)
            if field == b"content-length: " and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif field == b"transfer-encoding: " and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif field == b"connection: " and b"close" in value.lower():
                self.keep_alive = False
                closing = True
            values.append(value)
            lines += (field, value, b"\r\n")
        # A tab is allowed in a value, so joining with it hides nothing.
        if HEADER_VALUE_RE.search(b"\t".join(values)):
            raise RuntimeError("a header's value holds a control character")
        if not self.keep_alive and not closing:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _write(self, body: bytes, *, more: bool) -> None:
        """Put a part of the body on the wire, behind the head if that has not left yet."""
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            last = b"" if more else b"0\r\n\r\n"
            body = b"%x\r\n%b\r\n%b" % (len(body), body, last) if body else last
        else:
            if len(body) > self.expected_content_length:
                raise RuntimeError("the answer is longer than its Content-Length")
            self.expected_content_length -= len(body)
        if head and len(body) >= _JOIN_BELOW:
            self.transport.write(head)
            self.transport.write(body)
        elif head or body:
            self.transport.write(head + body)
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def cycle_of(protocol: HttpToolsProtocol) -> Cycle:
    """The cycle of the request whose headers ``protocol`` has just read; completes its ASGI scope."""
    scope = cast(dict[str, Any], protocol.scope)
    version = protocol.parser.get_http_version()
    raw_path, query = b"*", b""
    if protocol.url != raw_path:  # of OPTIONS, about the server as a whole
        url = httptools.parse_url(protocol.url)
        raw_path, query = url.path or b"/", url.query or b""
        if url.host:  # the whole URL, as to a proxy: what it says goes before Host (RFC 9112, 3.2.2)
            _set_host(protocol, url.host, url.port)
    path = raw_path.decode("ascii")
    scope["http_version"] = version
    scope["method"] = protocol.parser.get_method().decode("ascii")
    scope["path"] = urllib.parse.unquote(path) if "%" in path else path
    scope["raw_path"] = raw_path
    scope["query_string"] = query
    return Cycle(
        scope=scope,
        transport=protocol.transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=False,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=protocol.expect_100_continue,
        keep_alive=version != "1.0" and protocol.parser.should_keep_alive(),
        on_response=protocol.on_response_complete,
    )


def _set_host(protocol: HttpToolsProtocol, host: bytes, port: int | None) -> None:
    host = b"[%b]" % host if b":" in host else host
    authority = host if port is None else b"%b:%d" % (host, port)
    protocol.headers[:] = [field for field in protocol.headers if field[0].lower() != b"host"]
    protocol.headers.append((b"host", authority))


@functools.lru_cache(256)
def _field(name: bytes) -> bytes:
    """The beginning of a header's line. Raises RuntimeError for a name that cannot be one."""
    if HEADER_RE.search(name):
        raise RuntimeError("a header's name holds a character that names must not have")
    return name.lower() + b": "


def abandon(cycle: RequestResponseCycle, status: int) -> None:
    """The client of an unanswered request is gone, or was sent away with ``status``: stop the work for it."""
    cycle.disconnected = True
    cycle.message_event.set()
    RequestContext.of(cast(dict[str, Any], cycle.scope)).leave(status)


class Farewell:
    """What a cycle sees as its transport while its request is still arriving: closing means hanging up.

    Args:
        transport: the connection's own.
        hang_up: closes the connection so that its peer can still read the answer.
    """

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self._transport = transport
        self._hang_up = hang_up

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._hang_up()
