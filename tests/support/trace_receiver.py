"""A collector of traces on a real socket: it takes OTLP over HTTP, and can refuse or never answer."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.support.running_server import eventually


@dataclasses.dataclass(frozen=True)
class Span:
    """A span as it was received; ids in hexadecimal, instants in nanoseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    service: str


class TraceReceiver:
    """See the module's text.

    Attributes:
        spans: everything that was received.
        status: what is answered; 0 answers nothing until the receiver is closed.
        asked: how many messages have come.
        keys: the headers ``x-key`` of the messages, "" for none.
    """

    def __init__(self, status: int = 200, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.status = status
        self.asked = 0
        self.keys: set[str] = set()
        self._closed = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.asked += 1
                receiver.keys.add(self.headers.get("x-key", ""))
                if receiver.status == 0:
                    receiver._closed.wait()
                    return
                if receiver.status == 200:
                    receiver.spans += _spans(body)
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def trace(self, trace_id: str, root: str) -> dict[str, Span]:
        """The spans of a trace by name, once the span called ``root`` is among them."""

        def found() -> dict[str, Span]:
            return {span.name: span for span in list(self.spans) if span.trace_id == trace_id}

        eventually(lambda: root in found(), f"the trace with {root} has come")
        return found()


def _spans(body: bytes) -> Iterator[Span]:
    message = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
    for resource in message.resource_spans:
        of_resource = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                    {each.key: _value(each.value) for each in span.attributes},
                    of_resource["service.name"],
                )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def receiving(status: int = 200) -> Iterator[TraceReceiver]:
    """A receiver for the time of a block."""
    receiver = TraceReceiver(status)
    try:
        yield receiver
    finally:
        receiver.close()
