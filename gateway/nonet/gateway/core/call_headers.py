"""What a caller says in headers about how a request is to be handled, and what we say about how it was."""

from __future__ import annotations

import math
import re
import time

from nonet.gateway.core.call import Call
from nonet.gateway.core.gatekeeper import Gatekeeper
from nonet.gateway.core.request_context import RawHeaders, RequestContext
from nonet.gateway.core.request_trace import current_trace
from nonet.runtime.clock import Clock
from nonet.runtime.errors import DeadlineExceeded, InvalidArgument
from nonet.runtime.requests import InferResponse

DEFAULT_PRIORITY = 1
MAX_PRIORITY = 255

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,40})?([eE][+-]?\d{1,3})?", re.ASCII)
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")


class CallReader:
    """Reads a :class:`Call` from the headers.

    Args:
        gatekeeper: who knows the keys.
        clock: the clock of deadlines.
        max_timeout: largest timeout a caller may ask for, seconds.
    """

    def __init__(self, gatekeeper: Gatekeeper, clock: Clock, max_timeout: float) -> None:
        self._gatekeeper = gatekeeper
        self._clock = clock
        self._max_timeout = max_timeout

    def authenticate(self, context: RequestContext) -> str:
        """The tenant. Raises Unauthenticated or QuotaExceeded."""
        return self._gatekeeper.authenticate(_authorization(context))

    def identify(self, context: RequestContext) -> str:
        """The tenant, without counting against its quota. Raises Unauthenticated."""
        return self._gatekeeper.identify(_authorization(context))

    def read(self, context: RequestContext, arrived: float | None = None) -> Call:
        """Everything the headers say.

        The deadline counts from the request's first byte, so a slow upload uses up its own time; a request
        that is one of many on a stream gives its own arrival (``time.monotonic``) instead.
        Raises Unauthenticated, QuotaExceeded, InvalidArgument for a header that is not what it must be, and
        DeadlineExceeded for a timeout of 0 or one that has already passed. What was read is kept with the
        request, so that its quota is taken from once.
        """
        if arrived is None and context.call is not None:
            return context.call
        tenant = self.authenticate(context)
        headers = context.headers
        deadline: float | None = None
        if b"x-request-timeout-ms" in headers:
            deadline = self._deadline(context, context.arrived if arrived is None else arrived)
        priority = DEFAULT_PRIORITY
        if b"x-priority" in headers:
            priority = _priority(context.header(b"x-priority"))
        use_cache = store_in_cache = True
        if b"cache-control" in headers:
            directives = {part.strip() for part in context.header(b"cache-control").lower().split(",")}
            store_in_cache = "no-store" not in directives
            use_cache = store_in_cache and "no-cache" not in directives
        floor: float | None = None
        if b"x-accuracy-floor" in headers:
            floor = _floor(context.header(b"x-accuracy-floor"))
        explain = b"x-explain" in headers and asks_to_explain(context.header(b"x-explain"), "X-Explain")
        call = Call(tenant, deadline, priority, use_cache, store_in_cache, context.request_id, floor, explain)
        if arrived is None:
            context.call = call
        return call

    def in_time(self, call: Call) -> None:
        """Raises DeadlineExceeded if the deadline has passed, e.g. while the body was being sent."""
        if call.deadline is not None and self._clock.now() >= call.deadline:
            raise DeadlineExceeded("the deadline passed before the request had arrived")

    def _deadline(self, context: RequestContext, arrived: float) -> float:
        text = context.header(b"x-request-timeout-ms")
        name = "X-Request-Timeout-Ms"
        if _NUMBER.fullmatch(text) is None:
            raise InvalidArgument(f"{name} must be a number of milliseconds, got {text[:40]!r}", param=name)
        seconds = float(text) / 1e3
        if seconds < 0 or seconds > self._max_timeout:
            raise InvalidArgument(
                f"{name} must be between 0 and {self._max_timeout * 1e3:.0f} milliseconds, got {text[:40]}",
                param=name,
            )
        deadline = self._clock.now() - (time.monotonic() - arrived) + seconds
        if seconds == 0 or self._clock.now() >= deadline:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        return deadline


def _authorization(context: RequestContext) -> str | None:
    header = context.headers.get(b"authorization")
    return None if header is None else header.decode("latin-1")


def _priority(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= MAX_PRIORITY):
        raise InvalidArgument(
            f"X-Priority must be an integer from 0 (highest) to {MAX_PRIORITY}, got {text[:40]!r}",
            param="X-Priority",
        )
    return int(text)


def _floor(text: str) -> float:
    if _NUMBER.fullmatch(text) is None or not math.isfinite(float(text)):
        raise InvalidArgument(
            f"X-Accuracy-Floor must be a number, the least quality that will do, got {text[:40]!r}",
            param="X-Accuracy-Floor",
        )
    return float(text)


def asks_to_explain(text: str, name: str) -> bool:
    """Whether ``true`` or ``false`` was sent. Raises InvalidArgument for anything else."""
    if text.lower() not in ("true", "false"):
        raise InvalidArgument(f"{name} must be true or false, got {text[:40]!r}", param=name)
    return text.lower() == "true"


def answer_headers(response: InferResponse, decode: float, encode: float) -> RawHeaders:
    """The headers that say how a request was handled; its trace, if there is one, is told the same.

    Args:
        response: the answer.
        decode, encode: seconds the face itself took to read the request and to write the answer.
    """
    if (trace := current_trace.get()) is not None:
        trace.answered(decode, encode)
    timings = response.timings
    return [
        (b"x-model-version", _header_value(response.version)),
        (b"x-device", _header_value(response.device)),
        (b"x-cache", response.cache.encode("ascii")),
        (b"x-batch-size", b"%d" % response.batch_size),
        (
            b"server-timing",
            b"decode;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, encode;dur=%.3f"
            % (
                (decode + timings.decode) * 1e3,
                timings.queue * 1e3,
                timings.compute * 1e3,
                (encode + timings.encode) * 1e3,
            ),
        ),
    ]


def _header_value(text: str) -> bytes:
    """``text`` fit for a header, whatever a repository may call its versions and devices."""
    return _UNPRINTABLE.sub(b"_", text.encode("utf-8", "replace"))
