"""What the handlers of ``/v2`` are given, and the checks on a request's headers that several of them make."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.guard import Receive
from nonet.gateway.http.reply import Reply
from nonet.runtime.errors import PermissionDenied, UnsupportedMediaType

__all__ = ["Handler", "OipTarget", "check_content_type", "check_same_origin"]

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

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


@dataclasses.dataclass(slots=True)
class OipTarget:
    """What a request to ``/v2`` is about: the names in its path, its context and its body."""

    context: RequestContext
    receive: Receive
    model: str = ""
    version: str = ""


Handler: TypeAlias = Callable[[OipTarget], Awaitable[Reply]]


def check_content_type(context: RequestContext) -> None:
    """Raises UnsupportedMediaType for a type that is neither JSON, octets nor what curl sends by default."""
    content_type = context.headers.get(b"content-type")
    if content_type is None or content_type.partition(b";")[0].strip().lower() in _SPOKEN:
        return
    raise UnsupportedMediaType(
        "send application/json, or application/octet-stream with binary tensor data, "
        f"not {context.header(b'content-type')[:80]!r}",
        param="Content-Type",
    )


def check_same_origin(context: RequestContext) -> None:
    """Refuse what a page of another site makes a browser send: it must not change this server.

    Only browsers send these headers, and no page can forge them; other clients are not affected. Raises
    PermissionDenied (``CROSS_SITE``).
    """
    headers = context.headers
    site = headers.get(b"sec-fetch-site", b"").strip().lower()
    if site == b"same-origin":
        return
    origin = headers.get(b"origin")
    foreign = site == b"cross-site" if origin is None else not _is_own(origin, headers.get(b"host", b""))
    if foreign:
        raise PermissionDenied("pages of other sites may not change this server", code="CROSS_SITE")


def _is_own(origin: bytes, host: bytes) -> bool:
    scheme, _, place = origin.strip().lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme, b"")
    return bool(place) and place.removesuffix(port) == host.strip().lower().removesuffix(port)
