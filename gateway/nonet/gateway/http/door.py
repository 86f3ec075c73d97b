"""Refuses requests by their headers, on the connection itself: no task is made, and no body is read for them.

When more is asked than can be done, refusals are most of what a server does, and what each of them costs is
taken from the answers. So who calls, the quota, the queue and the deadline are looked at as soon as the
headers are there. Whoever is let in goes through the application, which looks at all of it again but for the
key and the quota; what else a header may decide is left to it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from starlette.types import Scope

from nonet.gateway.core.request_context import RequestContext, request_id
from nonet.gateway.http.access_log import log_request
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.guard import Observe, trace_answer
from nonet.gateway.http.origins import Origins
from nonet.gateway.http.problems import answer_bytes, error_status
from nonet.gateway.tracing import Tracer
from nonet.runtime.errors import ServingError

Check = Callable[[RequestContext, bytes], None]
"""Given the context and the raw query, raises the ServingError with which a request is refused by its
headers. What it has read of them it keeps in the context."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """An answer as it goes on the wire; ``keep_alive``: whether the connection serves further requests."""

    wire: bytes
    keep_alive: bool


@dataclasses.dataclass(slots=True, eq=False)
class Door:
    """See the module's text.

    Args:
        way: given path and raw path, the template of the route and what checks a POST there; None if its
            headers decide nothing.
        bodies, origins, access_log, observe, overload_status, tracer: as those of
            :class:`~nonet.gateway.http.guard.RequestGuard`.
    """

    way: Callable[[str, bytes], tuple[str, Check] | None]
    bodies: Bodies
    origins: Origins
    access_log: bool
    observe: Observe | None
    overload_status: int
    tracer: Tracer | None = None

    def refusal(
        self, scope: Scope, default_headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool
    ) -> Refusal | None:
        """The answer to a request that its headers already decide; None if it is to go on. Recorded like
        every other answer."""
        if scope["method"] != "POST":
            return None
        path = scope["path"]
        way = self.way(path, scope["raw_path"])
        if way is None:
            return None
        context = RequestContext.of(scope)
        context.begin(scope["headers"])
        if context.ambiguous:
            return None
        try:
            self.origins.check("POST", context.headers)
            self.bodies.check_declared(context, path)
        except ServingError:
            return None  # the application says so
        context.route = way[0]
        try:
            way[1](context, scope["query_string"])
        except ServingError as error:
            # A client that waits to be asked for its body need not send it; then nothing else can follow.
            keep_alive = keep_alive and b"expect" not in context.headers
            refusal = self._refusal(scope, context, error, default_headers, keep_alive=keep_alive)
            error.told()
            return refusal
        return None

    def _refusal(
        self,
        scope: Scope,
        context: RequestContext,
        error: ServingError,
        default_headers: Sequence[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
    ) -> Refusal:
        status = error_status(error, self.overload_status)
        fields = [*default_headers, (b"x-request-id", context.request_id.encode("ascii"))]
        if not keep_alive:
            fields.append((b"connection", b"close"))
        wire, length = answer_bytes(scope["path"], error, status, fields)
        if self.access_log:
            token = request_id.set(context.request_id)
            path = scope["raw_path"].decode("latin-1")
            log_request(context, "POST", path, status, length, scope.get("client"))
            request_id.reset(token)
        if self.observe is not None:
            self.observe(context.route, status, time.monotonic() - context.arrived)
        if self.tracer is not None:
            self.tracer.begin(context)
            if context.trace is not None:
                context.trace.refused(error.code, context.arrived)
            trace_answer(self.tracer, context, "POST", context.route, status)
        return Refusal(wire, keep_alive)
