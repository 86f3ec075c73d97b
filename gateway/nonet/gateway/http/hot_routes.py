"""Dispatches ``/v2`` and the busiest task routes straight to their handlers; all else goes through FastAPI.

FastAPI routes, documents and answers errors well, and takes as much processor time for it as a small network
takes for a picture. So ``/v2`` and the task routes that are hot are dispatched here, on the path alone; their
errors are those of :class:`~nonet.gateway.http.guard.RequestGuard`, as for every other route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.door import Check
from nonet.gateway.http.reply import Reply
from nonet.gateway.oip.rest_routes import OipRoutes


def is_oip(path: str) -> bool:
    """Whether a path is one of the Open Inference Protocol."""
    return path[:4] == "/v2/" or path == "/v2"


class HotRoute(Protocol):
    """A task route that is dispatched here."""

    async def __call__(self, context: RequestContext, receive: Receive, query: bytes) -> Reply:
        """The answer to one request. Raises ServingErrors."""

    def check(self, context: RequestContext, query: bytes) -> None:
        """See :data:`~nonet.gateway.http.door.Check`."""


class HotRoutes:
    """ASGI application over the two kinds of routes.

    Args:
        oip: ``/v2`` and everything below it.
        hot: handlers of ``POST`` by exact path; FastAPI knows the same routes and answers the other verbs.
        guard: puts the request guard around the application that serves these two.
        rest: everything else, with a guard of its own inside FastAPI's layers.
    """

    def __init__(
        self,
        oip: OipRoutes,
        hot: Mapping[str, HotRoute],
        guard: Callable[[ASGIApp], ASGIApp],
        rest: ASGIApp,
    ) -> None:
        self._oip = oip
        self._hot = hot
        self._guarded = guard(self._serve)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if is_oip(path) or (path in self._hot and scope["method"] == "POST"):
                await self._guarded(scope, receive, send)
                return
        await self._rest(scope, receive, send)

    def way(self, path: str, raw_path: bytes) -> tuple[str, Check] | None:
        """The template of a route and what checks a POST there by its headers, for the door; None if there
        is nothing to check."""
        route = self._hot.get(path)
        if route is not None:
            return path, route.check
        return self._oip.way(raw_path) if is_oip(path) else None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        handler = self._hot.get(path)
        if handler is None:
            await self._oip.serve(scope, receive, send)
            return
        context = RequestContext.of(scope)
        context.route = path
        reply = await handler(context, receive, scope["query_string"])
        await reply.send(send)
