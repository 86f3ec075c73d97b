"""Follows requests: decides which are recorded, and turns what the core tells of them into spans.

A caller's ``traceparent`` decides first, whichever way; where there is none, a share of the requests is taken
by the low half of the trace id, as OpenTelemetry's TraceIdRatioBased sampler does, so that processes with the
same share agree. Everything happens on the event loop and ends in a bounded queue: nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nonet.gateway.core.records import Observer, RequestRecord
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.core.request_trace import Attributes, RequestTrace, SpanFacts, current_trace, new_id

Export = Callable[[RequestTrace], None]


class Tracer(Observer):
    """See the module's text.

    Args:
        ratio: share of the requests without ``traceparent`` that are recorded, 0..1.
        export: takes the trace of a request that is over; must return at once.
    """

    def __init__(self, ratio: float, export: Export) -> None:
        self._below = round(ratio * (1 << 64))
        self._export = export

    def begin(self, context: RequestContext) -> None:
        """Follow a request whose headers have been read."""
        asked = context.trace
        if asked is None:
            trace_id = new_id(128)
            taken = int(trace_id[16:], 16) < self._below
            context.trace = RequestTrace(trace_id, new_id(64), taken, taken)
        elif asked.sampled:
            parent, span = asked.span_id, new_id(64)
            context.trace = RequestTrace(
                asked.trace_id, span, sampled=True, recording=True, parent_id=parent, asked_for=True
            )

    def end(self, context: RequestContext, name: str, attributes: Attributes, *, failed: bool) -> None:
        """A request is over. It is exported if its caller has asked for that, if a model was asked, or if it
        failed: who looks at health and metrics once a second is not worth a trace.

        Args:
            context: of the request.
            name, attributes: of its span.
            failed: whether the failure was the server's.
        """
        trace = context.trace
        if trace is None or not trace.recording:
            return
        trace.end(context.arrived)
        if not (trace.asked_for or trace.spans or trace.error):
            return
        now = time.monotonic()
        attributes["nonet.request_id"] = context.request_id
        if trace.dropped:
            attributes["nonet.dropped_spans"] = trace.dropped
        if trace.error:
            attributes["error.type"] = trace.error
        error = (trace.error or "error") if failed else ""
        trace.root = SpanFacts(name, trace.span_id, trace.parent_id, context.arrived, now, attributes, error)
        self._export(trace)

    def on_request(self, record: RequestRecord) -> None:
        """The spans of one request to the core."""
        trace = current_trace.get()
        if trace is None or not trace.recording:
            return
        now = time.monotonic()
        start = now - record.total
        model = {"nonet.model": record.model, "nonet.version": record.version}
        if record.stage == "admission" and not record.ok:
            trace.add(_child(trace, trace.span_id, "admission", start, now, dict(model), record.code))
            return
        whole = _child(trace, trace.span_id, "infer", start, now, {**model, "nonet.rows": record.rows})
        whole.error = record.code
        trace.add(whole)
        queued, begun, until = record.queued_at, record.begun_at, record.executed_at or now
        if record.cache != "bypass":
            looked: Attributes = {"nonet.cache": record.cache}
            trace.add(_child(trace, whole.span_id, "cache", start, queued or now, looked))
        if not queued:
            return
        error = record.code if not begun else ""
        trace.add(_child(trace, whole.span_id, "queue", queued, begun or until, {}, error))
        if begun:
            facts: Attributes = {
                **model,
                "nonet.device": record.device,
                "nonet.batch_size": record.batch_size,
                "nonet.decode_ms": record.decode * 1e3,
                "nonet.compute_ms": record.compute * 1e3,
                "nonet.encode_ms": record.encode * 1e3,
            }
            span = SpanFacts("execute", record.span_id, whole.span_id, begun, until, facts, record.code)
            trace.add(span)


def _child(
    trace: RequestTrace,
    parent: str,
    name: str,
    start: float,
    end: float,
    attributes: Attributes,
    error: str = "",
) -> SpanFacts:
    return SpanFacts(name, trace.new_span(), parent, start, end, attributes, error)
