"""Pipelines, leaving clients, full and stopping servers, on real sockets."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.gateway.http import HttpSettings
from tests.support.echo_application import FAST, Echo, chunked, request, still_serves
from tests.support.http_server import Wire, eventually


def test_pipelined_requests_are_answered_in_order(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"".join(request(body=b"%d" % number) for number in range(6)))
        assert [wire.answer()[2] for _ in range(6)] == [b"%d" % number for number in range(6)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=8))
def test_how_the_bytes_are_cut_changes_nothing(echo: Echo, cuts: list[int]) -> None:
    sent = (
        request(body=b"one") + chunked(b"two", b"TWO") + request("/refuse", b"three") + request(body=b"four")
    )
    with echo.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounds = [0, *sorted({cut for cut in cuts if cut < len(sent)}), len(sent)]
        for start, end in itertools.pairwise(bounds):
            wire.send(sent[start:end])
        assert [wire.answer()[2] for _ in range(4)] == [b"one", b"twoTWO", b"", b"four"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    noise=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"POST /v2 HTTP/1.1\r\n",
                    b"Host: a\r\n",
                    b"\r\n",
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Connection: close\r\n",
                    b"Upgrade: x\r\nConnection: upgrade\r\n",
                    b"Expect: 100-continue\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"abc",
                ]
            ),
        ),
        max_size=12,
    )
)
def test_no_bytes_harm_the_server(echo: Echo, noise: list[bytes]) -> None:
    with echo.connect() as wire:
        wire.try_send(b"".join(noise))
    still_serves(echo)
    eventually(lambda: echo.tasks == 0 and echo.echo.bodies.held == 0, "nothing is left behind")


def test_rubbish_after_whole_requests_does_not_spoil_their_answers(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request("/hold") + request(body=b"two") + b"\x00\x01rubbish\r\n\r\n")
        eventually(lambda: echo.echo.holding == 1, "the first request runs")
        echo.echo.release.set()
        assert wire.answer()[2] == b"held"
        _, headers, body = wire.answer()
        assert (body, headers["connection"]) == (b"two", "close")
        assert wire.closed()


def test_more_pipelined_requests_than_allowed_end_the_connection_after_the_allowed(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request("/hold") + b"".join(request(body=b"p") for _ in range(30)))
        eventually(lambda: echo.echo.holding == 1, "the first request runs")
        echo.echo.release.set()
        answers = [wire.answer() for _ in range(FAST.max_pipeline)]
        assert {status for status, _, _ in answers} == {200}
        assert answers[-1][1]["connection"] == "close"
        assert wire.closed()


def test_a_client_that_leaves_takes_its_work_with_it(echo: Echo) -> None:
    wire = echo.connect()
    wire.send(request("/hold"))
    eventually(lambda: echo.echo.holding == 1, "the request runs")
    wire.close()
    eventually(lambda: echo.echo.cancelled == 1, "the handler is cancelled")
    eventually(lambda: echo.tasks == 0 and echo.connections == 0, "nothing is left behind")


def test_a_client_that_leaves_with_pipelined_requests_starts_none_of_them(echo: Echo) -> None:
    wire = echo.connect()
    wire.send(request("/hold") + request(body=b"never") * 3)
    eventually(lambda: echo.echo.holding == 1, "the first request runs")
    wire.close()
    eventually(lambda: echo.echo.cancelled == 1 and echo.tasks == 0, "the handler is cancelled")
    assert echo.echo.served == 0
    still_serves(echo)


def test_a_half_closed_client_counts_as_gone(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request("/hold"))
        eventually(lambda: echo.echo.holding == 1, "the request runs")
        wire.socket.shutdown(socket.SHUT_WR)
        eventually(lambda: echo.echo.cancelled == 1, "the handler is cancelled")
        assert wire.closed()
    eventually(lambda: echo.connections == 0, "the connection is gone")


def test_a_client_that_leaves_in_its_body_leaves_nothing_behind(echo: Echo) -> None:
    wire = echo.connect()
    wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000)
    eventually(lambda: echo.echo.bodies.held > 0, "the body is being read")
    wire.close()
    eventually(lambda: echo.tasks == 0 and echo.echo.bodies.held == 0, "its memory is given back")


def test_a_client_that_does_not_read_its_answer_is_dropped(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request("/large"))
        eventually(lambda: echo.echo.served == 1, "the answer is written")
        eventually(lambda: echo.connections == 0, "the connection is dropped")


def test_a_route_that_does_not_read_the_body_keeps_the_connection(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request("/refuse", b"z" * 200_000) + request(body=b"next"))
        assert wire.answer()[0] == 200
        assert wire.answer()[2] == b"next"


def test_a_body_that_goes_on_after_its_answer_keeps_the_connection(echo: Echo) -> None:
    whole = request("/refuse", b"z" * 1_000_000) + request(body=b"next")
    with echo.connect() as wire:
        wire.send(whole[:200_000])
        assert wire.answer()[0] == 200
        for start in range(200_000, len(whole), 200_000):
            wire.send(whole[start : start + 200_000])
        assert wire.answer()[2] == b"next"


def test_expect_continue_is_answered_before_the_body_is_sent(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert wire.answer()[0] == 100
        wire.send(b"ok")
        assert wire.answer()[2] == b"ok"


def test_trailers_do_not_become_headers(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(
            b"POST / HTTP/1.1\r\nHost: test\r\nX-Request-Id: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-Request-Id: forged\r\n\r\n"
        )
        _, headers, body = wire.answer()
        assert (headers["x-request-id"], body) == ("mine", b"ok")


_UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "closing": ("Connection: Upgrade, close", "Upgrade: h2c"),
}


@pytest.mark.parametrize("kind", _UPGRADES)
@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 300_000])
def test_an_upgrade_changes_nothing(echo: Echo, kind: str, body: bytes) -> None:
    with echo.connect() as wire:
        wire.send(request("/", body, *_UPGRADES[kind]))
        status, headers, answer = wire.answer()
        assert (status, answer) == (200, body)
        if kind == "closing":
            assert headers["connection"] == "close"
            assert wire.closed()
        else:
            assert "upgrade" not in headers
            wire.send(request(body=b"on the same connection"))
            assert wire.answer()[2] == b"on the same connection"
    eventually(lambda: echo.tasks == 0, "the handler ends")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(1, 900), max_size=8))
def test_an_upgrade_changes_nothing_however_the_bytes_are_cut(echo: Echo, cuts: list[int]) -> None:
    asking = "\r\n".join(_UPGRADES["h2c"]).encode()
    sent = (
        request("/", b"one", *_UPGRADES["h2c"])
        + chunked(b"two", b"TWO").replace(b"Host: test", b"Host: test\r\n" + asking)
        + request("/", b"", *_UPGRADES["websocket"])
        + request("/refuse", b"three", *_UPGRADES["h2c"])
        + request(body=b"four")
    )
    with echo.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounds = [0, *sorted({cut for cut in cuts if cut < len(sent)}), len(sent)]
        for start, end in itertools.pairwise(bounds):
            wire.send(sent[start:end])
        assert [wire.answer()[2] for _ in range(5)] == [b"one", b"twoTWO", b"", b"", b"four"]


@pytest.mark.parametrize("framing", ["Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: gzip"])
def test_an_upgrade_hides_no_wrong_framing(echo: Echo, framing: str) -> None:
    with echo.connect() as wire:
        upgrade = "Connection: Upgrade\r\nUpgrade: h2c"
        wire.send(f"POST / HTTP/1.1\r\nHost: test\r\n{upgrade}\r\n{framing}\r\n\r\n".encode())
        assert wire.answer()[0] in (400, 501)
        assert wire.closed()


def test_while_draining_every_answer_closes_its_connection() -> None:
    draining = threading.Event()
    server = Echo(draining=draining.is_set)
    try:
        with server.connect() as wire:
            wire.send(request(body=b"before"))
            assert "connection" not in wire.answer()[1]
            draining.set()
            wire.send(request(body=b"after"))
            _, headers, body = wire.answer()
            assert (headers["connection"], body) == ("close", b"after")
            assert wire.closed()
    finally:
        server.stop()


def test_a_full_server_drops_the_longest_idle_connection_for_a_newcomer() -> None:
    server = Echo(HttpSettings(max_connections=3))
    try:
        idle: list[Wire] = []
        for _ in range(3):
            wire = server.connect()
            wire.send(request(body=b"x"))
            wire.answer()
            idle.append(wire)
        still_serves(server)
        assert idle[0].closed()
        idle[2].send(request(body=b"still here"))
        assert idle[2].answer()[2] == b"still here"
        for wire in idle:
            wire.close()
    finally:
        server.stop()


def test_a_server_full_of_busy_connections_refuses_with_503() -> None:
    server = Echo(HttpSettings(max_connections=2))
    try:
        busy = [server.connect() for _ in range(2)]
        for wire in busy:
            wire.send(request("/hold"))
        eventually(lambda: server.echo.holding == 2, "both run")
        with server.connect() as wire:
            status, headers, _ = wire.answer()
            assert status == 503
            assert int(headers["retry-after"]) >= 1
        server.echo.release.set()
        for wire in busy:
            assert wire.answer()[2] == b"held"
            wire.close()
    finally:
        server.stop()


def test_a_defect_is_500_without_detail_and_names_the_request(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    with echo.connect() as wire:
        wire.send(request("/crash", b"", "X-Request-Id: case-7"))
        status, headers, body = wire.answer()
        assert (status, headers["x-request-id"]) == (500, "case-7")
        assert "case-7" in json.loads(body)["error"]
        assert b"secret" not in body
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("given", ["a b", "x" * 129, "", "caf\xe9", 'quote"', "a;b"])
def test_an_insane_request_id_is_replaced(echo: Echo, given: str) -> None:
    with echo.connect() as wire:
        wire.send(request("/", b"", f"X-Request-Id: {given}"))
        answered = wire.answer()[1]["x-request-id"]
        assert answered != given
        assert len(answered) == 32


def test_uploads_together_are_bounded() -> None:
    server = Echo(HttpSettings(max_bodies_bytes=300_000))
    try:
        with server.connect() as first, server.connect() as second:
            first.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 250001\r\n\r\n" + b"x" * 250_000)
            eventually(lambda: server.echo.bodies.held == 250_000, "the first body is held")
            second.send(request(body=b"y" * 100_000))
            status, headers, body = second.answer()
            assert (status, json.loads(body)["error"][:8]) == (503, "too many")
            assert "retry-after" in headers
            first.send(b"x")
            assert first.answer()[0] == 200
        eventually(lambda: server.echo.bodies.held == 0, "all is given back")
    finally:
        server.stop()


def test_what_a_body_decodes_to_is_bounded_while_it_is_decoded() -> None:
    """Ten small bombs at once never hold more than the budget, and give all of it back."""
    server = Echo(HttpSettings(max_bodies_bytes=4 << 20, max_decoded_bytes=64 << 20))
    most = 0
    bomb = gzip.compress(bytes(32 << 20))
    try:
        wires = [server.connect() for _ in range(4)]
        for wire in wires:
            wire.send(request("/", bomb, "Content-Encoding: gzip"))
        while server.tasks:
            most = max(most, server.echo.bodies.held)
        for wire in wires:
            status, _, body = wire.answer()
            assert (status, json.loads(body)["error"][:8]) == (503, "too many")
            wire.close()
        assert most <= 4 << 20
        eventually(lambda: server.echo.bodies.held == 0, "all is given back")
        with server.connect() as wire:
            wire.send(request("/", gzip.compress(b"a" * 500_000), "Content-Encoding: gzip"))
            assert wire.answer()[2] == b"a" * 500_000
    finally:
        server.stop()


def test_the_server_stops_with_idle_and_half_open_requests_around() -> None:
    server = Echo(HttpSettings())
    wires = [server.connect() for _ in range(4)]
    wires[0].send(request(body=b"x"))
    wires[0].answer()
    wires[1].send(b"GET / HT")
    server.stop()
    for wire in wires:
        assert wire.closed()
        wire.close()
