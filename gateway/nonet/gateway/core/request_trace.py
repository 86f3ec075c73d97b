"""What is remembered of one request for its trace: plain facts, of which an exporter makes spans.

The identifiers and the header ``traceparent`` are those of W3C Trace Context (sections 3.2 and 3.3).
"""

from __future__ import annotations

import contextvars
import dataclasses
import random
import re
import time

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
_MOST_SPANS = 128
"""Spans of one request that are kept: a stream may carry any number of inferences."""

Attributes = dict[str, str | int | float]

current_trace: contextvars.ContextVar[RequestTrace | None] = contextvars.ContextVar(
    "nonet_trace", default=None
)
"""The trace of the request that is being handled; None where nobody follows it."""


def new_id(bits: int) -> str:
    """A random identifier, in hexadecimal; it distinguishes, and need not be hard to guess."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


@dataclasses.dataclass(slots=True)
class SpanFacts:
    """One span: instants are ``time.monotonic``; ``error`` is the code of an error, or ""."""

    name: str
    span_id: str
    parent_id: str
    start: float
    end: float
    attributes: Attributes
    error: str = ""


@dataclasses.dataclass(slots=True, eq=False)
class RequestTrace:
    """The trace of one request, on its way through this process.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: of the request's own span, 16 hexadecimal digits; where nothing is recorded, the caller's.
        sampled: what is handed on to whoever is asked next.
        recording: whether spans are kept.
        parent_id: the caller's span, "" if the trace begins here.
        asked_for: whether the caller has said that it be recorded.
        error: code of the error that the request was answered with, or "".
        root: the request's own span, once it is over.
        spans: the others.
        dropped: how many more there were.
    """

    trace_id: str
    span_id: str
    sampled: bool
    recording: bool = False
    parent_id: str = ""
    asked_for: bool = False
    error: str = ""
    root: SpanFacts | None = None
    spans: list[SpanFacts] = dataclasses.field(default_factory=list)
    dropped: int = 0
    _decode: float = 0.0
    _ended: bool = False

    @classmethod
    def of_header(cls, traceparent: str) -> RequestTrace | None:
        """The trace that a caller's header names, as it is handed on where nothing is recorded; None if it
        names none."""
        match = _TRACEPARENT.fullmatch(traceparent)
        return match and cls(match["trace"], match["span"], bool(int(match["flags"], 16) & 1))

    def new_span(self) -> str:
        """The id under which whoever is asked next hangs its spans."""
        return new_id(64) if self.recording else self.span_id

    def header(self, span_id: str) -> str:
        """``traceparent`` for whoever is asked next."""
        return f"00-{self.trace_id}-{span_id}-{self.sampled:02x}"

    def add(self, span: SpanFacts) -> None:
        """Keep a span, unless the request has ended or there are too many."""
        if not self.recording or self._ended:
            return
        if len(self.spans) < _MOST_SPANS:
            self.spans.append(span)
        else:
            self.dropped += 1

    def answered(self, decode: float, encode: float) -> None:
        """The face took ``decode`` seconds to read the request and has just taken ``encode`` to answer it."""
        if self.recording:
            now = time.monotonic()
            self._decode = decode
            self.add(SpanFacts("encode", self.new_span(), self.span_id, now - encode, now, {}))

    def refused(self, code: str, arrived: float) -> None:
        """The headers of the request, which arrived then, were enough to refuse it."""
        self.error = code
        span = SpanFacts("admission", self.new_span(), self.span_id, arrived, time.monotonic(), {}, code)
        self.add(span)

    def end(self, arrived: float) -> None:
        """The request, which arrived then, is over: nothing is added any more. What came before the first
        inference is split into what let it in, with the arrival of its body, and what read it; where it
        failed all of that is one."""
        self._ended = True
        if not self.spans or any(span.name == "admission" for span in self.spans):
            return
        begun = min(span.start for span in self.spans)
        read = max(begun - self._decode, arrived)
        self.spans.append(SpanFacts("admission", self.new_span(), self.span_id, arrived, read, {}))
        if self._decode:
            self.spans.append(SpanFacts("decode", self.new_span(), self.span_id, read, begun, {}))
