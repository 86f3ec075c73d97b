"""Sends the traces of requests to a collector, by OTLP over HTTP (protobuf), from a thread of its own.

What waits to be sent is bounded: where the collector is slower than the requests, or gone, traces are dropped
and counted, and no request ever waits for one.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from nonet.gateway.core.request_trace import Attributes, RequestTrace, SpanFacts
from nonet.runtime.release import VERSION

logger = logging.getLogger(__name__)

_MOST_TOGETHER = 512  # spans that are sent with one message
_GATHER = 0.5  # seconds in which traces are gathered for one message
_LAST_WORDS = 1.0  # seconds that what still waits gets when the server stops


class TracingUnavailable(Exception):
    """What sends traces is not installed."""


class SpanExporter:
    """See the module's text. Made and fed on the event loop.

    Args:
        endpoint: URL that takes the messages.
        headers: what goes with each of them, e.g. a key.
        service_name: what the collector knows this process by.
        timeout: seconds that the collector may be silent while it takes a message. One that it has not taken
            is lost.
        max_waiting: spans that wait to be sent.

    Raises TracingUnavailable if OpenTelemetry's messages are not installed.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        service_name: str,
        timeout: float,
        max_waiting: int,
    ) -> None:
        self._otlp = _Otlp(endpoint, headers, service_name, timeout)
        self._endpoint = endpoint
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[tuple[RequestTrace, int] | None] = queue.SimpleQueue()
        self._offered = 0  # spans, counted by the event loop alone
        self._taken = 0  # counted by the thread alone
        self._dropped = 0
        self._sent = 0
        self._lost = 0
        self._works = True
        self._thread = threading.Thread(target=self._run, name="send-traces", daemon=True)
        self._thread.start()

    def submit(self, trace: RequestTrace) -> None:
        """Send the trace of a request that is over; returns at once."""
        spans = len(trace.spans) + 1
        if self._offered - self._taken + spans > self._max_waiting:
            self._dropped += spans
            return
        self._offered += spans
        # Spans carry instants of the monotonic clock; what the clocks differ by may change.
        self._queue.put((trace, time.time_ns() - time.monotonic_ns()))

    def facts(self) -> dict[str, dict[str, int]]:
        """For ``/metrics``: spans, by what became of them."""
        return {"nonet_trace_spans": {"sent": self._sent, "lost": self._lost, "dropped": self._dropped}}

    async def close(self) -> None:
        """Send what waits, for a moment; a collector that does not answer holds nobody up."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _LAST_WORDS)

    def _run(self) -> None:
        last = False
        while not last:
            first = self._queue.get()
            if first is None:
                return
            traces, spans = [first], len(first[0].spans) + 1
            ends = time.monotonic() + _GATHER
            while not last and spans < _MOST_TOGETHER:
                try:
                    another = self._queue.get(timeout=max(ends - time.monotonic(), 0.0))
                except queue.Empty:
                    break
                if another is None:
                    last = True
                else:
                    traces.append(another)
                    spans += len(another[0].spans) + 1
            self._send(traces, spans)

    def _send(self, traces: Sequence[tuple[RequestTrace, int]], spans: int) -> None:
        try:
            self._otlp.send(self._otlp.message(traces))
            works = True
        except Exception as error:  # the thread outlives whatever is wrong with one message
            works = False
            why = f"{type(error).__name__}: {error}"
        self._taken += spans
        if works:
            self._sent += spans
        else:
            self._lost += spans
        if works != self._works:
            self._works = works
            if works:
                logger.warning("traces are taken again by %s", self._endpoint)
            else:
                logger.warning("traces are lost, %s does not take them: %s", self._endpoint, why[:200])


class _Otlp:
    """The messages of OTLP, and the connection they go over. OpenTelemetry's own SDK takes five times as long
    to write them (42 us a span, 9 us here), on the processors that the requests need."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], service_name: str, timeout: float) -> None:
        try:
            from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
            from opentelemetry.proto.common.v1 import common_pb2 as common
            from opentelemetry.proto.trace.v1 import trace_pb2 as messages
        except ImportError:
            raise TracingUnavailable from None
        self._service, self._common, self._messages = service, common, messages
        self._service_name = service_name
        self._endpoint = endpoint
        self._client = httpx.Client(
            timeout=timeout, headers={**headers, "content-type": "application/x-protobuf"}
        )

    def message(self, traces: Sequence[tuple[RequestTrace, int]]) -> bytes:
        """All spans of some traces; with each, the nanoseconds from the monotonic clock to the epoch."""
        request = self._service.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.extend(
            self._attributes({"service.name": self._service_name, "service.version": VERSION})
        )
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = "nonet", VERSION
        kinds = self._messages.Span
        for trace, offset in traces:
            for span in trace.spans:
                self._add(scope.spans, trace, span, offset, kinds.SPAN_KIND_INTERNAL)
            if trace.root is not None:
                self._add(scope.spans, trace, trace.root, offset, kinds.SPAN_KIND_SERVER)
        message: bytes = request.SerializeToString()
        return message

    def _add(self, spans: Any, trace: RequestTrace, span: SpanFacts, offset: int, kind: int) -> None:
        made = spans.add(
            name=span.name,
            trace_id=bytes.fromhex(trace.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            kind=kind,
            start_time_unix_nano=round(span.start * 1e9) + offset,
            end_time_unix_nano=round(span.end * 1e9) + offset,
            attributes=self._attributes(span.attributes),
        )
        if span.error:
            made.status.code = self._messages.Status.STATUS_CODE_ERROR
            if "error.type" not in span.attributes:
                made.attributes.extend(self._attributes({"error.type": span.error}))

    def _attributes(self, attributes: Attributes) -> list[Any]:
        pairs = []
        for key, given in attributes.items():
            field: dict[str, Any] = {_FIELDS[type(given)]: given}
            pairs.append(self._common.KeyValue(key=key, value=self._common.AnyValue(**field)))
        return pairs

    def send(self, message: bytes) -> None:
        """Raises httpx.HTTPError if the collector has not taken it."""
        self._client.post(self._endpoint, content=message).raise_for_status()


_FIELDS: dict[type, str] = {str: "string_value", int: "int_value", float: "double_value"}
