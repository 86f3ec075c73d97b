"""Cases 36-39: slow, idle, pipelining, half-closed and very many connections; hostile headers. Defect 7."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.bare_sockets import AsyncWire, Wire, infer_bytes, request_bytes
from tests.support.running_server import RunningServer, eventually, running

X: list[dict[str, object]] = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}]
GET_LIVE = request_bytes("GET", "/v2/health/live")
HEADER_TIMEOUT, BODY_TIMEOUT, KEEP_ALIVE = 1.0, 1.5, 2.0
GUARD = 15.0


@pytest.fixture(scope="module")
def hasty(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with receipt deadlines of a second or two."""
    limits = {
        "server": {"header_timeout": HEADER_TIMEOUT, "body_timeout": BODY_TIMEOUT, "keep_alive": KEEP_ALIVE},
        "scheduler": {"default_timeout": 300.0},
        "repository": {"poll_seconds": 0.0},
    }
    with running(small_repository, tmp_path_factory.mktemp("hasty"), limits) as started:
        yield started


def drip(wire: Wire, data: bytes, pause: float) -> None:
    """Send one byte at a time until the server closes, answers, or the bytes are used up."""
    for byte in data:
        if wire.has_answer(pause) or not wire.try_send(bytes([byte])):
            return


def assert_timed_out(wire: Wire) -> None:
    """The connection ends with 408, or simply ends when the answer was lost in the reset."""
    try:
        reply = wire.reply()
    except ConnectionError:
        return
    assert reply.status == 408
    assert wire.closed_by_server()


def test_case_36_defect_7_one_header_byte_at_a_time_is_cut_at_the_receipt_deadline(
    hasty: RunningServer,
) -> None:
    head = b"POST /v2/models/echo_fp32/infer HTTP/1.1\r\nHost: test\r\n" + b"X-Pad: a\r\n" * 200
    start = time.monotonic()
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        drip(wire, head, 0.05)
        assert_timed_out(wire)
    elapsed = time.monotonic() - start
    assert HEADER_TIMEOUT * 0.8 < elapsed < HEADER_TIMEOUT + 5


def test_case_36_headers_that_stop_midway_get_408(hasty: RunningServer) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        wire.send(b"POST /v2/models/echo_fp32/infer HTTP/1.1\r\nHost: te")
        reply = wire.reply()
        assert reply.status == 408
        assert "error" in json.loads(reply.body)
        assert wire.closed_by_server()


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_case_36_a_body_that_stops_midway_gets_408(hasty: RunningServer, framing: str) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        wire.send(f"POST /v2/models/echo_fp32/infer HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n".encode())
        wire.send(b"3\r\nabc\r\n" if "chunked" in framing else b"abc")
        assert wire.reply().status == 408
        assert wire.closed_by_server()


def test_case_36_a_body_byte_at_a_time_is_cut_although_it_keeps_moving(hasty: RunningServer) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        wire.send(b"POST /v2/models/echo_fp32/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n")
        drip(wire, b" " * 400, 0.05)
        assert_timed_out(wire)


def test_case_36_a_connection_that_never_says_anything_is_closed(hasty: RunningServer) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        assert wire.closed_by_server()


def test_case_36_an_idle_keep_alive_connection_is_closed(hasty: RunningServer) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        wire.send(GET_LIVE)
        assert wire.reply().status == 200
        assert wire.closed_by_server()


def test_case_36_a_second_slow_request_on_the_same_connection_is_cut_too(hasty: RunningServer) -> None:
    with Wire(hasty.http_port, timeout=GUARD) as wire:
        wire.send(GET_LIVE)
        assert wire.reply().status == 200
        wire.send(b"GET /v2/health/live HTT")
        assert_timed_out(wire)


@pytest.mark.parametrize(
    "method",
    ["inference.GRPCInferenceService/ModelInfer", "nonet.v1.Jobs/WatchJob", "grpc.health.v1.Health/Watch"],
)
def test_case_36_a_grpc_call_whose_message_never_comes_is_ended(hasty: RunningServer, method: str) -> None:
    silence = threading.Event()

    def messages() -> Iterator[bytes]:
        silence.wait(GUARD)
        yield b""

    with grpc.insecure_channel(hasty.grpc_address) as channel:
        call = channel.stream_stream(f"/{method}")(messages(), timeout=GUARD)
        assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED, call
        assert "did not arrive in time" in call.details()
        silence.set()


def test_case_36_others_are_served_while_a_hundred_drip(hasty: RunningServer) -> None:
    stop = threading.Event()
    dripping = [Wire(hasty.http_port, timeout=GUARD) for _ in range(100)]

    def feed() -> None:
        while not stop.wait(0.1):
            for wire in dripping:
                wire.try_send(b"P")

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(20):
            assert hasty.infer("echo_fp32", X).status_code == 200
    finally:
        stop.set()
        feeder.join()
        for wire in dripping:
            wire.close()


def test_a_slow_model_is_not_mistaken_for_a_slow_client(hasty: RunningServer) -> None:
    """The receipt deadline ends with the last byte received: computing may take longer."""
    waiting = [Wire(hasty.http_port) for _ in range(12)]
    for number, wire in enumerate(waiting):
        wire.send(
            infer_bytes("slow", [{"name": "x", "datatype": "FP32", "shape": [1], "data": [float(number)]}])
        )
    assert [wire.reply().status for wire in waiting] == [200] * len(waiting)
    for wire in waiting:
        wire.close()


def test_case_37_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    values = [float(number) for number in range(20)]
    requests = [infer_bytes("echo_fp32", [X[0] | {"data": [value]}]) for value in values]
    with Wire(server.http_port) as wire:
        wire.send(b"".join(requests))
        answers = [json.loads(wire.reply().body)["outputs"][0]["data"] for _ in requests]
    assert answers == [[value] for value in values]


def test_case_37_a_half_closed_client_still_gets_its_answer(server: RunningServer) -> None:
    """The client has said all it has to say; it has not left."""
    with Wire(server.http_port) as wire:
        wire.send(infer_bytes("echo_fp32", X, {"Connection": "close"}))
        wire.finish_sending()
        assert wire.reply().status == 200


def test_case_37_pipelines_cut_in_any_place_leak_nothing(server: RunningServer) -> None:
    def settle() -> None:
        eventually(lambda: server.descriptors() <= before, "all descriptors of dead connections come back")

    one = infer_bytes("echo_fp32", X)
    server.infer("echo_fp32", X)
    before, threads = server.descriptors(), server.threads()
    for cut in range(0, 2 * len(one), 7):
        wire = Wire(server.http_port)
        wire.send((one * 2)[:cut])
        (wire.reset, wire.close, wire.finish_sending)[cut % 3]()
        wire.socket.close()
    settle()
    assert server.threads() <= threads + 2
    assert server.infer("echo_fp32", X).status_code == 200


def test_case_37_half_a_body_then_half_close_ends_the_connection(server: RunningServer) -> None:
    with Wire(server.http_port, timeout=GUARD) as wire:
        wire.send(infer_bytes("echo_fp32", X)[:-5])
        wire.finish_sending()
        assert wire.closed_by_server()


async def test_case_38_ten_thousand_idle_connections_are_held_and_health_answers(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 1_000)
    try:
        server = start_server(small_repository, {"server": {"keep_alive": 300.0}})
        before, wires = server.rss(), []
        for _ in range(0, count, 500):
            batch = await asyncio.gather(*(AsyncWire.open(server.http_port) for _ in range(min(500, count))))
            replies = await asyncio.gather(*(wire.ask(GET_LIVE) for wire in batch))
            assert {reply.status for reply in replies} == {200}
            wires += batch
        assert server.descriptors() >= len(wires)
        assert server.infer("echo_fp32", X).status_code == 200
        assert (await wires[0].ask(GET_LIVE)).status == 200
        assert (server.rss() - before) / len(wires) < 64 * 1024, "an idle connection costs too much memory"
        for wire in wires:
            wire.abort()
        await asyncio.to_thread(
            eventually, lambda: server.descriptors() < 500, "the descriptors come back", 30.0
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_case_38_more_connections_than_descriptors_leave_the_server_alive(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    """400 clients against 256 descriptors: some are turned away, none kills it, and it recovers."""
    server = start_server(small_repository, prefix=("prlimit", "--nofile=256:256"))
    assert server.infer("echo_fp32", X).status_code == 200
    wires = [Wire(server.http_port, timeout=GUARD) for _ in range(400)]
    for wire in wires:
        wire.try_send(GET_LIVE)
    served = sum(wire.has_answer(0.02) for wire in wires)
    assert served >= 100
    for wire in wires:
        wire.close()
    eventually(lambda: server.descriptors() < 200, "the descriptors come back")
    with Wire(server.http_port) as wire:
        wire.send(infer_bytes("echo_fp32", X))
        assert wire.reply().status == 200


def test_a_newcomer_takes_the_place_of_the_longest_idle_or_is_told_503(
    start_server: Callable[..., RunningServer], small_repository: Path
) -> None:
    """Idle connections never keep a new client out; busy ones are never closed for it."""
    server = start_server(small_repository, {"server": {"max_connections": 4}, "scheduler": {"lanes": 1}})
    held = [Wire(server.http_port, timeout=GUARD) for _ in range(4)]
    for wire in held:
        wire.send(GET_LIVE)
        assert wire.reply().status == 200
    with Wire(server.http_port) as newcomer:
        newcomer.send(GET_LIVE)
        assert newcomer.reply().status == 200
        assert held[0].closed_by_server()
        held.pop(0).close()
        held.append(newcomer)
        for number, wire in enumerate(held):
            entry = {"name": "x", "datatype": "FP32", "shape": [1], "data": [number + 0.5]}
            wire.send(infer_bytes("slow", [entry]))
        with Wire(server.http_port) as extra:
            extra.try_send(GET_LIVE)
            reply = extra.reply()
            assert reply.status == 503
            assert "retry-after" in reply.headers
        assert [wire.reply().status for wire in held] == [200] * 4
    for wire in held:
        wire.close()


EVIL = "a\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK"


def test_case_39_an_id_cannot_inject_headers(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", X, id=EVIL)
    assert "X-Evil" not in reply.headers
    if reply.status_code == 200:
        assert reply.json()["id"] == EVIL
        assert "\r" not in reply.headers.get("X-Request-Id", "")


@pytest.mark.parametrize(
    "value", ["\x1b[31mred\x07", "a" * 5000, "caf\xe9", "<script>", "%0d%0aX-Evil: 1", "a,b;c=d"]
)
def test_case_39_a_hostile_request_id_header_is_sanitised(server: RunningServer, value: str) -> None:
    marks = server.log.count("\x1b[31m")
    with Wire(server.http_port) as wire:
        head = f"GET /v2/health/ready HTTP/1.1\r\nHost: t\r\nX-Request-Id: {value}\r\n\r\n"
        wire.send(head.encode("latin-1"))
        reply = wire.reply()
    assert reply.status in (200, 400)
    assert "x-evil" not in reply.headers
    echoed = reply.headers.get("x-request-id", "")
    assert len(echoed) <= 256
    assert echoed.isascii()
    assert all(" " <= character < "\x7f" for character in echoed)
    assert server.log.count("\x1b[31m") == marks


def test_case_39_a_plain_request_id_comes_back_and_a_missing_one_is_made(server: RunningServer) -> None:
    reply = server.infer("echo_fp32", X, headers={"X-Request-Id": "mine-42"})
    assert reply.headers["X-Request-Id"] == "mine-42"
    made = {server.infer("echo_fp32", X).headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3


def test_case_39_invented_model_names_share_one_metric_label(server: RunningServer) -> None:
    def invent(name: str) -> None:
        server.infer(name, X)
        server.infer("echo_fp32", X, version=name)
        server.http.get(f"/v2/models/{name}/ready")
        server.http.get(f"/{name}/{name}")
        server.http.request(name.upper(), f"/{name}")
        server.metrics()

    invent("invented")
    series = set(server.metrics())
    for number in range(100):
        invent(f"invented{number}")
    assert "invented" not in server.http.get("/metrics").text.lower()
    assert set(server.metrics()) == series


def test_case_39_newlines_in_model_names_reach_neither_log_lines_nor_metrics(server: RunningServer) -> None:
    for path in ("/v2/models/a%0aFORGED-LINE%20level=error/infer", "/v2/models/%1b%5b31m/infer"):
        assert server.http.post(path, json={"inputs": X}).status_code == 404
    server.infer("echo_fp32", [X[0] | {"name": "x\nFORGED-LINE"}])
    assert not any(line.startswith("FORGED-LINE") for line in server.log.splitlines())
    assert not any(line.startswith("FORGED-LINE") for line in server.http.get("/metrics").text.splitlines())


@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_case_39_headers_beyond_the_limit_are_refused_without_being_kept(
    server: RunningServer, size: int
) -> None:
    with Wire(server.http_port, timeout=GUARD) as wire:
        wire.try_send(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nX-Big: " + b"a" * size + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # a reset may overtake the answer under our sending
            assert wire.reply().status in (400, 413, 431)
    assert server.http.get("/v2/health/live").status_code == 200
