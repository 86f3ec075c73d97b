"""The routes of the Open Inference Protocol over REST: ``/v2`` and everything below it.

One object, which finds the operation by the path's raw segments itself: that costs less than matching twenty
patterns on the path of every inference. ``%2F`` inside a segment stays inside it, so a name can never be
mistaken for a route, and no route joins names to a file path.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from nonet.gateway.core.call_headers import CallReader
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.core.shared_memory import checked_region
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.door import Check
from nonet.gateway.http.reply import Reply, compressed
from nonet.gateway.oip.operations import Asked, Operations, checked_name
from nonet.gateway.oip.rest_infer import OipInference, check_content_type
from nonet.gateway.oip.rest_operations import OPERATIONS, RestOperation
from nonet.gateway.tasks.fields import parse_json_object
from nonet.runtime.errors import InvalidArgument, MethodNotAllowed, NotFound, ServingError

_KEPT_PATHS = 512
_OF_REGION = tuple(f"/region/{{name}}/{verb}" for verb in ("status", "register", "unregister"))
_MAX_CONTROL_BODY = 1024 * 1024

_Handler = Callable[[RequestContext, Receive, Asked], Awaitable[Reply]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Endpoint:
    """A route: its template, the handler of each verb, and the names its path gave."""

    template: str
    verbs: Mapping[str, _Handler]
    named: Asked


@dataclasses.dataclass(eq=False)
class OipRoutes:
    """All of ``/v2``.

    Args:
        operations: all but inference.
        inference: answers inference.
        calls: reads keys.
        bodies: reads bodies within their limits.
        compress_from: bytes of an answer from which it is compressed for who accepts that.
    """

    operations: Operations
    inference: OipInference
    calls: CallReader
    bodies: Bodies
    compress_from: int

    def __post_init__(self) -> None:
        self._inferring: dict[str, _Handler] = {"POST": self.inference.infer}
        self._verbs: dict[str, dict[str, _Handler]] = {
            "/v2/models/{model}/infer": self._inferring,
            "/v2/models/{model}/versions/{version}/infer": self._inferring,
        }
        for each in OPERATIONS:
            self._verbs.setdefault(each.path, {})[each.verb] = functools.partial(self._run, each)
        # Names are short, and only paths that exist are kept.
        self._endpoint = functools.lru_cache(_KEPT_PATHS)(self._resolve)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises every ServingError of the failure model."""
        context = RequestContext.of(scope)
        endpoint = self._endpoint(scope.get("raw_path") or scope["path"].encode())
        context.route = endpoint.template
        method = scope["method"]
        handler = endpoint.verbs.get(method)
        if handler is None:
            raise MethodNotAllowed(f"{method} is not allowed here")
        reply = await handler(context, receive, endpoint.named)
        reply = await compressed(reply, context, self.compress_from)
        await reply.send(send)

    def way(self, raw_path: bytes) -> tuple[str, Check] | None:
        """The template of an inference's path and what checks it by its headers; None for all other paths."""
        try:
            endpoint = self._endpoint(raw_path)
        except ServingError:
            return None
        if endpoint.verbs is not self._inferring:
            return None
        return endpoint.template, functools.partial(self.inference.check, endpoint.named)

    def methods_of(self, scope: Scope) -> Collection[str]:
        """The methods that a path declares. Raises NotFound if there is no such path."""
        return self._endpoint(scope.get("raw_path") or scope["path"].encode()).verbs.keys()

    def _resolve(self, raw: bytes) -> _Endpoint:
        """The endpoint of a path. Raises NotFound if there is none, or if the name of a model or version
        cannot be one, InvalidArgument for that of a region."""
        parts = _segments(raw.partition(b"?")[0])
        for template, verbs in self._verbs.items():
            names = _match(template.split("/")[1:], parts)
            if names is not None and template.endswith(_OF_REGION):
                return _Endpoint(template, verbs, Asked(region=checked_region(*names)))
            if names is not None:
                return _Endpoint(template, verbs, Asked(*checked_name(*(*names, "", "")[:2])))
        raise NotFound("there is no such route; see /docs", code="ROUTE_NOT_FOUND")

    async def _run(
        self, operation: RestOperation, context: RequestContext, receive: Receive, named: Asked
    ) -> Reply:
        tenant = "" if operation.keyless else self.calls.authenticate(context)
        if operation.of_repository:
            self.operations.control()  # refused before the body is read
        sent = {} if operation.body is None else await self._json_object(context, receive)
        answer = operation.run(self.operations, dataclasses.replace(named, sent=sent, tenant=tenant))
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, dict) and answer.get("ready") is False:
            error = f"the {'model' if named.model else 'server'} is not ready"
            reply = Reply.json({"error": error, **answer}, 503)
            reply.headers.append((b"retry-after", b"1"))
            return reply
        return Reply.json(answer)

    async def _json_object(self, context: RequestContext, receive: Receive) -> dict[str, Any]:
        """The body as an object; no body is an empty one."""
        check_content_type(context)
        body = await self.bodies.read(context, receive)
        if not body.strip():
            return {}
        if len(body) > _MAX_CONTROL_BODY:
            raise InvalidArgument(f"the body of a control request has at most {_MAX_CONTROL_BODY} bytes")
        return parse_json_object(body, InvalidArgument)


def _segments(raw_path: bytes) -> list[str]:
    """The decoded segments of a path below its leading slash; none that is not plain text.

    One trailing slash is forgiven: ``/v2/`` is ``/v2``.
    """
    parts = raw_path.split(b"/")[1:]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    decoded = [unquote_to_bytes(part) if b"%" in part else part for part in parts]
    return [part.decode("ascii") for part in decoded] if all(map(bytes.isascii, decoded)) else []


def _match(template: list[str], parts: list[str]) -> list[str] | None:
    """The names that ``parts`` have where the template has braces; None if they do not fit."""
    if len(template) != len(parts):
        return None
    names = []
    for wanted, part in zip(template, parts, strict=True):
        if wanted.startswith("{") and part:
            names.append(part)
        elif wanted != part:
            return None
    return names
