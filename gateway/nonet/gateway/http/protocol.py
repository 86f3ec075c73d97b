"""The connection: uvicorn's httptools protocol, made safe against slow, broken and greedy clients.

uvicorn parses and runs the application. This class adds what a server that faces the internet needs and
uvicorn leaves out: a request must arrive in time (headers, then body at a minimal rate), or is answered 408;
headers, chunks and pipelined requests are counted; a client that leaves takes its work with it; a refusal
reaches a client that is still sending; nothing is read from a peer that has broken the protocol, but the
answers to its earlier requests still go out; a full server makes room by closing the connection that has been
idle the longest.

A client that closes its sending side counts as gone: that is the only sign TCP gives of a client that left.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nonet.gateway.core.request_context import EXTENSION, RequestContext
from nonet.gateway.http.access_log import log_refusal
from nonet.gateway.http.body_skipper import BodySkipper
from nonet.gateway.http.cycle import Cycle, Farewell, abandon, cycle_of
from nonet.gateway.http.door import Door
from nonet.gateway.http.pool import ConnectionPool
from nonet.gateway.http.problems import HeadersTooLarge, MalformedRequest, answer_bytes
from nonet.gateway.http.settings import HttpSettings
from nonet.gateway.http.upgrades import parser_behind_head
from nonet.runtime.errors import (
    InvalidArgument,
    NotImplementedHere,
    PayloadTooLarge,
    RequestTimeout,
    ServingError,
    Unavailable,
)

# Where the bytes that come next belong.
_BETWEEN, _HEAD, _BODY = range(3)

# Chunk sizes, their extensions and line ends may take this much beside the data they frame.
_FRAMING_SLACK = 512 * 1024


class _Answered(Exception):
    """Stops the parser: the last request of this connection has its answer."""


def guarded_protocol(
    settings: HttpSettings, draining: Callable[[], bool], door: Door | None = None
) -> type[GuardedProtocol]:
    """The protocol class for one server, to be given to uvicorn as ``http=``.

    Args:
        settings: the limits.
        draining: while it returns True each answer carries ``Connection: close``.
        door: refuses requests by their headers, if anything does.
    """
    return type(
        "ServerProtocol",
        (GuardedProtocol,),
        {
            "settings": settings,
            "draining": staticmethod(draining),
            "door": door,
            "pool": ConnectionPool(settings.connections),
        },
    )


class GuardedProtocol(HttpToolsProtocol):
    """See the module's text. Made by :func:`guarded_protocol`, which fills the class attributes."""

    settings: ClassVar[HttpSettings]
    draining: ClassVar[staticmethod[[], bool]]
    door: ClassVar[Door | None]
    pool: ClassVar[ConnectionPool]

    cycle: Cycle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._stage = _BETWEEN
        self._since: float | None = None  # when the wait for the bytes of this stage began
        self._head_bytes = 0
        self._body_bytes = 0
        self._wire_bytes = 0
        self._chunks = 0
        self._unwanted = 0  # bytes of the body of a request that was refused by its headers
        self._deaf = False
        self._watch: asyncio.TimerHandle | None = None
        self._write_watch: asyncio.TimerHandle | None = None

    # The life of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.pool.enter(self):
            self._deaf = True
            self._answer_refusal(
                Unavailable("the server has no connection to spare", code="TOO_MANY_CONNECTIONS")
            )
            transport.close()
            return
        self._since = time.monotonic()
        self._look_again_in(self.settings.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.leave(self)
        for timer in (self._watch, self._write_watch):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        unanswered, self._unanswered = self._unanswered, deque()
        self.pipeline.clear()
        super().connection_lost(exc)
        for cycle in unanswered:
            abandon(cycle, 499)

    def evict(self) -> None:
        """Make room: the pool has chosen this idle connection."""
        self._close_or_abort()

    def shutdown(self) -> None:  # when idle, else with the last answer
        if self._unanswered:
            self._unanswered[-1].keep_alive = False
        else:
            self._close_or_abort()

    def timeout_keep_alive_handler(self) -> None:
        self._close_or_abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_watch = self.loop.call_later(self.settings.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_watch is not None:
            self._write_watch.cancel()
            self._write_watch = None
        super().resume_writing()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._since is None:
            self._since = time.monotonic()
        self._wire_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Answered):
                self.hang_up()
                return
            self._refuse(cause if isinstance(cause, ServingError) else MalformedRequest())
            return
        if self._since is not None:
            self._incomplete()

    def _feed(self, data: bytes) -> None:
        """Parse. A request that asks for another protocol is answered in ours, as if it had not."""
        while data:
            try:
                self.parser.feed_data(data)
                if (left := self._unwanted - self._body_bytes) > 0:
                    self.parser = cast(httptools.HttpRequestParser, BodySkipper(self, left))
                self._unwanted = 0
                return
            except httptools.HttpParserUpgrade as upgrade:
                self.parser, framing = parser_behind_head(self, self.headers)
                data = framing + data[upgrade.args[0] :]

    def _incomplete(self) -> None:
        """A request has arrived in part: check what it has cost so far and see that it comes to an end."""
        if self._stage != _BODY:
            if self._wire_bytes > self.settings.max_header_bytes:
                self._refuse(HeadersTooLarge.over(self.settings.max_header_bytes))
                return
        else:
            if self._wire_bytes > 2 * self._body_bytes + _FRAMING_SLACK:
                self._refuse(InvalidArgument("the chunked body carries more framing than data"))
                return
            if self.cycle.unread > HIGH_WATER_LIMIT and not self.cycle.response_complete:
                # What has arrived whole is handled first, without stopping for it.
                self.flow.pause_reading()
            if self.cycle.transport is self.transport:
                self.cycle.transport = cast(asyncio.Transport, Farewell(self.transport, self.hang_up))
        if self._watch is None:
            self._look_again_in(max(0.0, self._due() - time.monotonic()))

    def on_message_begin(self) -> None:
        if len(self._unanswered) >= self.settings.max_pipeline:
            raise InvalidArgument(
                f"more than {self.settings.max_pipeline} pipelined requests wait for an answer"
            )
        super().on_message_begin()
        self.pool.busy(self)
        now = time.monotonic()
        cast(dict[str, Any], self.scope)["extensions"] = {EXTENSION: RequestContext(now)}
        self._stage, self._since = _HEAD, now
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._stage == _HEAD:  # what comes after the body are trailers: counted, and ignored
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            if len(self.headers) > self.settings.max_headers:
                raise HeadersTooLarge(f"the request has more than {self.settings.max_headers} header fields")

    def on_headers_complete(self) -> None:
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            raise NotImplementedHere("a Transfer-Encoding other than chunked is not understood here")
        before, self.cycle = self.cycle, cycle_of(self)
        self._stage, self._since = _BODY, time.monotonic()
        self._body_bytes = self._wire_bytes = self._chunks = self._unwanted = 0
        if before is not None and not before.response_complete:
            self.pipeline.appendleft((self.cycle, self.app))
        elif self._turned_away():
            return
        else:
            self._start_asgi_task(self.cycle, self.app)
        self._unanswered.append(self.cycle)
        if len(self._unanswered) > 1:
            # Reading goes on behind a pipelined request, or nobody would see the client leave. What may pile
            # up is bounded anyway: max_pipeline requests, and reading stops at 64 KiB of a body.
            self.flow.resume_reading()
        if self.draining():
            self.cycle.keep_alive = False

    def _turned_away(self) -> bool:
        """Whether the door has refused the request whose headers have come; then it is answered."""
        cycle, fields = self.cycle, self.server_state.default_headers
        scope = cast(dict[str, Any], cycle.scope)
        lasting = cycle.keep_alive and not self.draining()
        refusal = self.door.refusal(scope, fields, keep_alive=lasting) if self.door else None
        if refusal is None:
            return False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(refusal.wire)
        if not refusal.keep_alive:
            raise _Answered
        self._unwanted = int(dict(self.headers).get(b"content-length", 0))
        super().on_response_complete()
        return True

    def on_chunk_header(self) -> None:
        self._chunks += 1
        spare = self._chunks - self.settings.free_chunks
        if spare > 0 and self._body_bytes < spare * self.settings.min_chunk_bytes:
            raise InvalidArgument(
                f"the body comes in too many small chunks: beyond {self.settings.free_chunks}, they must "
                f"have {self.settings.min_chunk_bytes} bytes on average",
                code="TOO_MANY_CHUNKS",
            )

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.settings.max_body_bytes and self.cycle.response_complete:
            # Answered long ago, and still sending: more than anybody may send at all.
            raise PayloadTooLarge("the body is too large")
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.feed(body)
        if cycle.unread > HIGH_WATER_LIMIT and cycle is not self._unanswered[0]:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # of the head alone: another parser reads what follows
        super().on_message_complete()
        # uvicorn stops reading while it holds 64 KiB that the application has not taken. Who waits for the
        # answer takes nothing more, and only reading on shows that the client leaves.
        if len(self._unanswered) == 1:
            self.flow.resume_reading()
        self._stage, self._since = _BETWEEN, None
        self._wire_bytes = 0
        if not self._unanswered:
            # Answered before its body had arrived: idle from now on.
            self._unset_keepalive_if_required()
            idle = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(idle, self.timeout_keep_alive_handler)
            self.pool.rest(self)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.settings.max_header_bytes:
            raise HeadersTooLarge.over(self.settings.max_header_bytes)

    # Time

    def _due(self) -> float:
        """The instant by which the current stage must be over."""
        since = self._since or 0.0
        if self._stage != _BODY:
            return since + self.settings.header_timeout
        earned = self.settings.body_grace + self._body_bytes / self.settings.body_min_rate
        return since + min(earned, self.settings.body_timeout)

    def _look_again_in(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """See whether the request arrives in time. Armed only while one arrives; re-arms itself."""
        self._watch = None
        if self._since is None or self._deaf or self.transport.is_closing():
            return
        now = time.monotonic()
        answering = self._unanswered and (self._stage != _BODY or self.cycle is not self._unanswered[0])
        if answering or self.flow.read_paused:
            # We are the ones who are not ready; this time is not the client's.
            self._since = now
        if (left := self._due() - now) > 0:
            self._look_again_in(left)
        elif self._stage == _BETWEEN:
            self._close_or_abort()
        else:
            part = "headers" if self._stage == _HEAD else "body"
            self._refuse(RequestTimeout(f"the request's {part} did not arrive in time"))

    # Answers and ends

    def on_response_complete(self) -> None:
        if self._unanswered:
            self._unanswered.popleft()
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._write_watch = self.loop.call_later(self.settings.write_timeout, self.transport.abort)
        elif not self._unanswered and self._stage == _BETWEEN:
            self.pool.rest(self)

    def _refuse(self, error: ServingError) -> None:
        """Give up on the request that is arriving: answer ``error`` if nothing was answered yet, and close.

        Requests that arrived whole before it are answered first.
        """
        self._deaf = True
        current = self.cycle if self._stage == _BODY and not self.cycle.response_complete else None
        if current is not None:
            self._unanswered.pop()
            if self.pipeline and self.pipeline[0][0] is current:
                self.pipeline.popleft()
            abandon(current, error.http_status)
        if self._unanswered:
            self._unanswered[-1].keep_alive = False
            return
        if self._stage != _BODY:
            log_refusal(self.client, error)
        if current.response_started if current is not None else self._stage == _BODY:
            self.hang_up()
            return
        self._answer_refusal(error)
        self.hang_up()

    def _answer_refusal(self, error: ServingError) -> None:
        path = getattr(self, "url", b"").decode("latin-1")
        fields = [*self.server_state.default_headers, (b"connection", b"close")]
        self.transport.write(answer_bytes(path, error, error.http_status, fields)[0])

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidArgument(msg))

    def hang_up(self) -> None:
        """Close in a way that lets the peer read our last answer although it is still sending: closing at
        once would make the kernel reset the connection and throw that answer away."""
        self._deaf = True
        if self._stage == _BETWEEN or not self.transport.can_write_eof():
            self._close_or_abort()
            return
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self.loop.call_later(self.settings.linger_timeout, self.transport.abort)

    def _close_or_abort(self) -> None:
        """Close an idle connection; what it has not read by now it never will."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.close()
