"""What the handlers of ``/v2`` are given, and the checks on a request's headers that several of them make."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.http.guard import Receive
from nonet.gateway.http.reply import Reply
from nonet.runtime.errors import UnsupportedMediaType

__all__ = ["Handler", "OipTarget", "check_content_type"]

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


@dataclasses.dataclass(slots=True)
class OipTarget:
    """What a request to ``/v2`` is about: the names in its path, its context and its body."""

    context: RequestContext
    receive: Receive
    model: str = ""
    version: str = ""
    region: str = ""


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
