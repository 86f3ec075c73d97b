"""Which requests are recorded, and what is kept of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.core.records import RequestRecord
from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.core.request_trace import RequestTrace, current_trace
from nonet.gateway.tracing import Tracer

SAMPLED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def followed(tracer: Tracer, traceparent: bytes | None = None) -> RequestContext:
    context = RequestContext(time.monotonic())
    context.begin([] if traceparent is None else [(b"traceparent", traceparent)])
    tracer.begin(context)
    return context


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 2000)])
def test_none_and_all_are_exact(ratio: float, recorded: int) -> None:
    tracer = Tracer(ratio, lambda trace: None)
    traces = [followed(tracer).trace for _ in range(2000)]
    assert sum(trace is not None and trace.recording for trace in traces) == recorded


def test_a_share_is_about_that_share_and_is_decided_by_the_trace_id() -> None:
    tracer = Tracer(0.25, lambda trace: None)
    traces = [trace for trace in (followed(tracer).trace for _ in range(2000)) if trace is not None]
    assert 350 < sum(trace.recording for trace in traces) < 650
    for trace in traces:
        assert trace.recording == trace.sampled == (int(trace.trace_id[16:], 16) < 1 << 62)


@given(st.sampled_from(["00", "02", "01", "03", "ff"]))
def test_the_caller_decides_where_it_says_something(flags: str) -> None:
    for ratio in (0.0, 1.0):
        context = followed(Tracer(ratio, lambda trace: None), SAMPLED[:-2] + flags.encode())
        trace = context.trace
        assert trace is not None
        assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert trace.recording == bool(int(flags, 16) & 1)
        # Whoever is asked next decides the same.
        handed_on = RequestTrace.of_header(trace.header(trace.new_span()))
        assert handed_on is not None
        assert handed_on.sampled == trace.recording


def test_without_a_tracer_the_callers_context_is_handed_on_as_it_came() -> None:
    context = RequestContext(0.0)
    context.begin([(b"traceparent", SAMPLED)])
    assert context.trace is not None
    assert context.trace.header(context.trace.new_span()) == SAMPLED.decode()


def test_a_long_stream_keeps_so_many_spans_and_says_how_many_more_there_were() -> None:
    exported: list[RequestTrace] = []
    tracer = Tracer(1.0, exported.append)
    context = followed(tracer)
    token = current_trace.set(context.trace)
    try:
        for _ in range(500):
            tracer.on_request(RequestRecord(model="m", version="1", ok=True, stage="done"))
    finally:
        current_trace.reset(token)
    tracer.end(context, "stream", {}, failed=False)
    assert len(exported) == 1
    root = exported[0].root
    assert root is not None
    assert len(exported[0].spans) == 128 + 1  # and what came before the first
    assert root.attributes["nonet.dropped_spans"] == 500 - 128


def test_what_goes_on_after_the_answer_adds_nothing_to_a_trace_that_is_being_sent() -> None:
    exported: list[RequestTrace] = []
    tracer = Tracer(1.0, exported.append)
    context = followed(tracer, SAMPLED)
    token = current_trace.set(context.trace)
    try:
        tracer.end(context, "POST /v1/classify", {}, failed=False)
        tracer.on_request(RequestRecord(model="m", version="2", ok=True, stage="done"))
    finally:
        current_trace.reset(token)
    assert exported[0].spans == []
