"""The outermost layer of the application: every request gets an id, an answer and a line in the log.

Pure ASGI, one object for all of it, because it is on the path of every request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nonet.gateway.core.request_context import RequestContext, request_id
from nonet.gateway.core.request_trace import Attributes, current_trace
from nonet.gateway.http.access_log import log_request
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.origins import Origins
from nonet.gateway.http.problems import JSON, error_body, error_headers, error_status
from nonet.gateway.tracing import Tracer
from nonet.runtime.errors import (
    ClientClosed,
    Internal,
    InvalidArgument,
    PayloadTooLarge,
    ServingError,
    Unavailable,
)

logger = logging.getLogger(__name__)


Observe = Callable[[str, int, float], None]
"""Told of each answered request: the route's template (``other`` for a path we do not have, so that made-up
paths cannot become labels), the status (499 if the client left, 408 if it was too slow), and the seconds from
the request's first byte to the end of the answer."""


@dataclasses.dataclass(slots=True, eq=False)
class RequestGuard:
    """ASGI middleware: request ids, body limits by declared length, the error shapes, the access log.

    - ``X-Request-Id`` is echoed if it is 1 to 128 characters of ``A-Za-z0-9._-``, else replaced.
    - The task that handles a request is cancelled when its client leaves; nothing is sent then.
    - A ServingError becomes its answer; any other exception is logged with the request id and becomes a 500
      that says nothing about it.

    Args:
        app: the application.
        bodies: whose accounts are closed when a request ends.
        access_log: whether to write a line for each request.
        observe: called once for each request when it is over.
        origins: judges by which name and from whose page a request comes; None lets all in.
        overload_status: of refusals because of too much work, see :func:`error_status`.
        tracer: follows the requests; None records none.
    """

    app: ASGIApp
    _: dataclasses.KW_ONLY
    bodies: Bodies
    access_log: bool = True
    observe: Observe | None = None
    origins: Origins | None = None
    overload_status: int = 503
    tracer: Tracer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = RequestContext.of(scope)
        if not context.request_id:  # else the door has read them
            context.begin(scope["headers"])
        request_id.set(context.request_id)
        if self.tracer is not None:
            self.tracer.begin(context)
        current_trace.set(context.trace)
        answer = _Answer(context, send, self.overload_status)
        context.attend()
        try:
            try:
                if context.left:
                    return
                if context.ambiguous:
                    raise _given_twice(context.ambiguous)
                if self.origins is not None:
                    self.origins.check(scope["method"], context.headers)
                self.bodies.check_declared(context, scope["path"])
                await self.app(scope, receive, answer)
            except asyncio.CancelledError:
                await self._cancelled(scope, context, answer)
            except ServingError as error:
                if context.trace is not None:
                    context.trace.error = error.code
                await answer.fail(scope["path"], error)
                error.told()
            except Exception:
                logger.exception("the handler of a request failed")
                if answer.status:
                    raise
                await answer.fail(scope["path"], Internal(_internal_message(context)))
        finally:
            context.finish()
            self.bodies.release(context)
            self._report(scope, context, answer)

    async def _cancelled(self, scope: Scope, context: RequestContext, answer: _Answer) -> None:
        task = asyncio.current_task()
        if context.left:
            # The cancellation was ours and ends here.
            if task is not None:
                task.uncancel()
            return
        if task is not None and task.cancelling():
            # The server stops and its grace is over.
            task.uncancel()
            await answer.fail(scope["path"], Unavailable("the server is shutting down", code="SHUTTING_DOWN"))
            return
        logger.error("the handler of a request was cancelled by nobody")
        await answer.fail(scope["path"], Internal(_internal_message(context)))

    def _report(self, scope: Scope, context: RequestContext, answer: _Answer) -> None:
        status = context.left or answer.status or 499
        if self.access_log:
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            log_request(
                context, scope["method"], raw.decode("latin-1"), status, answer.sent, scope.get("client")
            )
        route = context.route or getattr(scope.get("route"), "path", "") or "other"
        if self.observe is not None:
            self.observe(route, status, time.monotonic() - context.arrived)
        if self.tracer is not None:
            trace_answer(self.tracer, context, scope["method"], route, status)


def trace_answer(tracer: Tracer, context: RequestContext, method: str, route: str, status: int) -> None:
    """A request was answered: its span, with the attributes that OpenTelemetry has for HTTP."""
    attributes: Attributes = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
    }
    tracer.end(context, f"{method} {route}", attributes, failed=status >= 500)


class _Answer:
    """The send side: remembers what was sent and adds the request id."""

    __slots__ = ("_context", "_overload_status", "_send", "sent", "status")

    def __init__(self, context: RequestContext, send: Send, overload_status: int) -> None:
        self._context = context
        self._send = send
        self._overload_status = overload_status
        self.status = 0
        self.sent = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._context.request_id.encode("ascii")),
            ]
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)

    async def fail(self, path: str, error: ServingError) -> None:
        """Answer ``error``, if nothing has been sent yet and there is somebody to read it."""
        if self.status or self._context.left or isinstance(error, ClientClosed):
            return
        body = error_body(path, error)
        headers = error_headers(error)
        headers += [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
        if isinstance(error, PayloadTooLarge) and not self._context.received:
            headers.append((b"connection", b"close"))
        status = error_status(error, self._overload_status)
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _given_twice(name: str) -> InvalidArgument:
    return InvalidArgument(f"the header {name} is given twice, with different values", param=name)


def _internal_message(context: RequestContext) -> str:
    return f"internal error; the server's log has more under request id {context.request_id}"
