"""One request and its answer, as every layer of a face sees it: the connection, the handlers, the logs."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from nonet.gateway.core.call import Call
from nonet.gateway.core.request_trace import RequestTrace
from nonet.gateway.core.upload_budget import Hold

Scope = MutableMapping[str, Any]
RawHeaders = list[tuple[bytes, bytes]]
"""Headers, or metadata, as name and value."""

EXTENSION = "nonet.request_context"

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("nonet_request_id", default="")
"""Id of the request that is being handled; every log line written meanwhile carries it."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


# Headers of one value, of which another would make it another request.
_SINGLE = frozenset(
    {
        b"authorization",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"inference-header-content-length",
        b"last-event-id",
        b"origin",
        b"sec-fetch-site",
        b"x-accuracy-floor",
        b"x-explain",
        b"x-priority",
        b"x-request-timeout-ms",
    }
)


@dataclasses.dataclass(slots=True, eq=False)
class RequestContext:
    """What is known of one HTTP request beside its ASGI scope.

    Attributes:
        arrived: monotonic instant (``time.monotonic``) of the request's first byte.
        headers: the request's headers, lower-case name to value; of repeated fields the last, but of
            ``Prefer``, which is a list, all together.
        ambiguous: a header that says how the request is to be handled and was sent with two values; "" if
            there is none.
        request_id: the caller's ``X-Request-Id`` if it is sane, else one of ours.
        trace: what the caller's ``traceparent`` says, or what is recorded; None where nobody follows it.
        route: the route's template for metrics, e.g. ``/v2/models/{model}/infer``; "" until it is known.
        received: whether the body has been read to its end.
        hold: what accounts for the memory that the body takes while the request is handled; None before.
        call: what the headers say of how the request is to be handled; None before they are read for that.
        left: 0 while the client is there, else the status that the access log shows: 499 when the client
            closed the connection, 408 when it was too slow.
    """

    arrived: float
    headers: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    ambiguous: str = ""
    request_id: str = ""
    trace: RequestTrace | None = None
    route: str = ""
    received: bool = False
    hold: Hold | None = None
    call: Call | None = None
    left: int = 0
    _task: asyncio.Task[Any] | None = None

    @classmethod
    def of(cls, scope: Scope) -> RequestContext:
        """The context the connection put into ``scope``; a new one under a server that knows none."""
        extensions = scope.setdefault("extensions", {})
        found = extensions.get(EXTENSION)
        if found is None:
            found = extensions[EXTENSION] = cls(time.monotonic())
        context: RequestContext = found
        return context

    def begin(self, raw_headers: list[tuple[bytes, bytes]]) -> None:
        """Take in the headers: fills ``headers``, ``request_id`` and ``trace``."""
        self.headers = headers = dict(raw_headers)
        if len(headers) != len(raw_headers):
            self.ambiguous = _contradicted(raw_headers, headers)
        if b"prefer" in headers:
            headers[b"prefer"] = b", ".join(value for name, value in raw_headers if name == b"prefer")
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if _SANE_ID.fullmatch(given) else os.urandom(16).hex()
        if (parent := headers.get(b"traceparent")) is not None:
            self.trace = RequestTrace.of_header(parent.decode("latin-1"))

    @property
    def trace_id(self) -> str:
        """Of the trace, "" where nobody follows it."""
        return self.trace.trace_id if self.trace is not None else ""

    def header(self, name: bytes) -> str:
        """A header as text, "" if it is absent."""
        return self.given(name) or ""

    def given(self, name: bytes) -> str | None:
        """A header as text, None if it is absent: an empty one is not as if it had not been sent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    def attend(self) -> None:
        """From now on the current task is cancelled when the client leaves."""
        self._task = asyncio.current_task()

    def finish(self) -> None:
        """The answer is complete; a client that leaves now disturbs nobody."""
        self._task = None

    def leave(self, status: int = 499) -> None:
        """The client is gone, or has been sent away with ``status``: stop the work that was for it."""
        if not self.left:
            self.left = status
            if self._task is not None:
                self._task.cancel()


def _contradicted(raw_headers: RawHeaders, last: Mapping[bytes, bytes]) -> str:
    """The name of a header of one value that was sent with two, "" if there is none."""
    found = (name for name, value in raw_headers if name in _SINGLE and value != last[name])
    return next(found, b"").decode("ascii")
