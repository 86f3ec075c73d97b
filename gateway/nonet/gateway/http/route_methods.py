"""``HEAD`` and ``OPTIONS`` on every route, and the ``Allow`` of what is refused, in one place.

A route declares the methods that do something. What answers ``GET`` answers ``HEAD`` with the same headers;
any path that there is tells ``OPTIONS`` which methods it has; any other method is refused with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nonet.gateway.core.request_context import RequestContext
from nonet.runtime.errors import MethodNotAllowed

ANY_PATH = "*"
"""The path of ``OPTIONS *``, which asks about the server as a whole."""

MethodsOf = Callable[[Scope], Collection[str]]
"""The methods that the routes of a scope's path declare; raises NotFound if there is no such path."""


class RouteMethods:
    """ASGI middleware; see the module's text.

    Args:
        app: the application, which raises MethodNotAllowed for a method that a route does not declare.
        methods_of: see :data:`MethodsOf`.
    """

    def __init__(self, app: ASGIApp, methods_of: MethodsOf) -> None:
        self._app = app
        self._methods_of = methods_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["type"] == "http" else ""
        if method == "OPTIONS":
            headers = [(b"allow", ", ".join(self._allowed(scope)).encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            if method == "HEAD":
                await self._head(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except MethodNotAllowed:
            allowed = self._allowed(scope)
            refusal = MethodNotAllowed(f"{method} is not allowed here; use {', '.join(allowed)}")
            refusal.allowed = tuple(allowed)
            raise refusal from None

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What ``GET`` would be answered, without its body, however long that would be."""
        asked = {**scope, "method": "GET"}

        async def head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                raise _HeadSent

        try:
            await self._app(asked, receive, head)
        except _HeadSent:
            return
        finally:
            RequestContext.of(scope).route = RequestContext.of(scope).route or getattr(
                asked.get("route"), "path", ""
            )

    def _allowed(self, scope: Scope) -> list[str]:
        declared = self._methods_of(scope)
        implied = ("HEAD", "OPTIONS") if "GET" in declared else ("OPTIONS",)
        return sorted({*declared, *implied})


class _HeadSent(Exception):
    """The head is on the wire: nothing more is wanted of the handler."""
