"""Case 68: SIGTERM ends the service without failing a request that was accepted."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.bare_sockets import Wire, infer_bytes, request_bytes
from tests.support.running_server import RunningServer, eventually
from tests.support.slow_requests import fresh_value, slow_input

Start = Callable[..., RunningServer]


def settings(**server: float) -> dict[str, dict[str, float]]:
    return {
        "server": server,
        "scheduler": {"lanes": 1, "default_timeout": 300.0},
        "repository": {"poll_seconds": 0.0},
    }


def test_case_68_sigterm_finishes_what_is_in_flight_and_exits_0(
    start_server: Start, small_repository: Path
) -> None:
    server = start_server(small_repository, settings(grace=25.0))
    values = [fresh_value() for _ in range(4)]
    wires = [Wire(server.http_port) for _ in values]
    for wire, value in zip(wires, values, strict=True):
        wire.send(infer_bytes("slow", slow_input(value)))
    eventually(lambda: server.pending("slow") >= 2, "requests run and wait")
    server.popen.send_signal(signal.SIGTERM)
    for wire, value in zip(wires, values, strict=True):
        reply = wire.reply()
        assert reply.status == 200, reply.body
        assert json.loads(reply.body)["outputs"][0]["data"] == [value]
        assert reply.headers["connection"].lower() == "close"
        assert wire.closed_by_server()
        wire.close()
    assert server.popen.wait(20) == 0


def test_case_68_an_upload_under_way_at_sigterm_is_finished(
    start_server: Start, small_repository: Path
) -> None:
    """Nothing else is in flight: the request is accepted with its headers, not with its last byte."""
    server = start_server(small_repository, settings(grace=25.0))
    value = fresh_value()
    whole = infer_bytes("slow", slow_input(value))
    with Wire(server.http_port) as wire:
        wire.send(whole[:-5])
        time.sleep(0.3)
        server.popen.send_signal(signal.SIGTERM)
        eventually(lambda: "leaving" in server.log, "the signal is seen")
        time.sleep(0.3)
        wire.send(whole[-5:])
        reply = wire.reply()
        assert reply.status == 200, reply.body
        assert json.loads(reply.body)["outputs"][0]["data"] == [value]
        assert reply.headers["connection"].lower() == "close"
    assert server.popen.wait(20) == 0


def test_case_68_readiness_falls_at_once_and_the_delay_still_serves(
    start_server: Start, small_repository: Path
) -> None:
    """In the drain delay the balancer learns from readiness; what it still sends is served."""
    server = start_server(small_repository, settings(drain_delay=3.0, grace=20.0))
    with Wire(server.http_port) as held, grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        held.send(request_bytes("GET", "/v2/health/ready"))
        assert held.reply().status == 200
        server.popen.send_signal(signal.SIGTERM)
        eventually(lambda: server.http.get("/v2/health/ready").status_code == 503, "readiness falls", 2.0)
        assert not stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=2).ready
        assert server.http.get("/v2/health/live").status_code == 200
        assert server.infer("slow", slow_input(fresh_value())).status_code == 200
    assert server.popen.wait(20) == 0


def test_case_68_new_work_after_the_delay_is_refused_with_connection_close(
    start_server: Start, small_repository: Path
) -> None:
    """A kept-alive connection that asks during the drain is told 503 and closed, or finds it closed."""
    server = start_server(small_repository, settings(grace=20.0))
    with Wire(server.http_port) as held, Wire(server.http_port) as working, Wire(server.http_port) as queued:
        held.send(request_bytes("GET", "/v2/health/live"))
        assert held.reply().status == 200
        working.send(infer_bytes("slow", slow_input(fresh_value())))
        queued.send(infer_bytes("slow", slow_input(fresh_value())))
        eventually(lambda: server.pending("slow") == 1, "one runs, one waits")
        server.popen.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        if held.try_send(infer_bytes("slow", slow_input(fresh_value()))):
            try:
                reply = held.reply()
            except ConnectionError:
                pass
            else:
                assert reply.status == 503
                assert reply.headers["connection"].lower() == "close"
                assert "retry-after" in reply.headers
        assert (working.reply().status, queued.reply().status) == (200, 200)
    assert server.popen.wait(20) == 0


def test_case_68_what_outlives_the_grace_is_cancelled_and_the_exit_is_in_time(
    start_server: Start, small_repository: Path
) -> None:
    server = start_server(small_repository, settings(grace=1.0))
    wires = [Wire(server.http_port) for _ in range(20)]
    for wire in wires:
        wire.send(infer_bytes("slow", slow_input(fresh_value())))
    eventually(lambda: server.pending("slow") >= 15, "many seconds of work wait")
    start = time.monotonic()
    server.popen.send_signal(signal.SIGTERM)
    server.popen.wait(20)
    assert time.monotonic() - start < 8.0
    statuses = []
    for wire in wires:
        try:
            statuses.append(wire.reply().status)
        except (ConnectionError, TimeoutError):
            statuses.append(0)
        wire.close()
    assert set(statuses) <= {0, 200, 503, 504}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_case_68_a_second_signal_exits_now(start_server: Start, small_repository: Path, second: int) -> None:
    server = start_server(small_repository, settings(drain_delay=20.0, grace=25.0))
    server.popen.send_signal(signal.SIGTERM)
    eventually(lambda: server.http.get("/v2/health/ready").status_code == 503, "it drains")
    server.popen.send_signal(second)
    server.popen.wait(5)


def test_case_68_idle_keep_alive_connections_do_not_hold_up_the_exit(
    start_server: Start, small_repository: Path
) -> None:
    server = start_server(small_repository, settings(grace=25.0))
    wires = [Wire(server.http_port) for _ in range(20)]
    for wire in wires:
        wire.send(request_bytes("GET", "/v2/health/live"))
        assert wire.reply().status == 200
    server.popen.send_signal(signal.SIGTERM)
    assert server.popen.wait(10) == 0
    for wire in wires:
        wire.close()


def test_case_68_the_port_is_free_after_the_exit(start_server: Start, small_repository: Path) -> None:
    server = start_server(small_repository, settings(grace=5.0))
    assert server.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/v2/health/live")
