"""The collector of traces is down, refuses, or never answers: no request notices, and the server stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.running_server import RunningServer, eventually, free_port
from tests.support.slow_requests import fresh_value
from tests.support.trace_receiver import TraceReceiver, receiving

Start = Callable[..., RunningServer]


def started(start_server: Start, repository: Path, url: str, **settings: float) -> RunningServer:
    return start_server(repository, {"tracing": {"endpoint": url, "timeout": 0.5, **settings}})


def ask(server: RunningServer, times: int) -> str:
    """The id of the last of so many requests, all of which are answered."""
    for _ in range(times):
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [fresh_value()] * 4}]
        reply = server.infer("echo_fp32", inputs)
        assert reply.status_code == 200
    return str(reply.headers["x-request-id"])


def spans(server: RunningServer, outcome: str) -> float:
    return server.metric("nonet_trace_spans_total", outcome=outcome)


def lose_more(server: RunningServer) -> None:
    before = spans(server, "lost")
    eventually(lambda: ask(server, 5) and spans(server, "lost") > before, "more traces are lost")


def test_a_collector_that_is_down_or_refuses_costs_traces_and_nothing_else(
    start_server: Start, small_repository: Path
) -> None:
    port = free_port()
    server = started(start_server, small_repository, f"http://127.0.0.1:{port}/v1/traces")
    ask(server, 20)
    eventually(lambda: spans(server, "lost") > 0, "traces are lost while it is down")
    receiver = TraceReceiver(status=400, port=port)
    try:
        for status in (400, 503):
            receiver.status = status
            lose_more(server)
        receiver.status = 200
        eventually(lambda: ask(server, 1) and receiver.spans, "traces arrive")
        eventually(lambda: spans(server, "sent") > 0, "traces are counted as sent")
        last = ask(server, 3)
        assert server.stop() == 0  # what waits is sent first
        assert last in {span.attributes.get("nonet.request_id") for span in receiver.spans}
    finally:
        receiver.close()
    assert "HTTP Request" not in server.log
    # Said when it begins and when it ends, not at every message.
    assert server.log.count("traces are lost") == 1
    assert server.log.count("traces are taken again") == 1


def test_a_collector_that_hangs_costs_traces_and_nothing_else(
    start_server: Start, small_repository: Path
) -> None:
    with receiving(status=0) as receiver:
        server = started(start_server, small_repository, receiver.url, max_waiting=64, timeout=60.0)
        eventually(lambda: ask(server, 5) and receiver.asked, "the collector is asked and hangs")
        ask(server, 60)
        assert spans(server, "dropped") > 0
        assert spans(server, "sent") == 0
        # A message is under way that would take a minute.
        assert server.stop() == 0
