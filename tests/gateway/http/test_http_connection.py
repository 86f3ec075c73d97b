"""Slow, oversized and malformed requests, on real sockets."""

from __future__ import annotations

import json
import socket
import threading

import psutil
import pytest

from tests.support.echo_application import Echo, chunked, request, still_serves
from tests.support.http_server import eventually


def test_a_keep_alive_connection_serves_request_after_request(echo: Echo) -> None:
    with echo.connect() as wire:
        for number in range(3):
            wire.send(request(body=b"%d" % number))
            status, headers, body = wire.answer()
            assert (status, body) == (200, b"%d" % number)
            assert "connection" not in headers


def test_headers_one_byte_at_a_time_end_in_408(echo: Echo) -> None:
    with echo.connect() as wire:
        for byte in b"GET /v2/":
            wire.send(bytes([byte]))
        status, headers, body = wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert "did not arrive in time" in json.loads(body)["error"]
        assert wire.closed()
    still_serves(echo)


def test_a_trickle_of_header_bytes_does_not_extend_the_time(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\n")
        wire.socket.settimeout(0.05)
        for _ in range(200):
            if not wire.try_send(b"X-A: b\r\n"):
                break
            try:
                if wire.socket.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        wire.socket.settimeout(20)
        assert wire.answer()[0] == 408


def test_a_connection_that_never_speaks_is_closed(echo: Echo) -> None:
    with echo.connect() as wire:
        assert wire.closed()


def test_blank_lines_do_not_keep_a_connection_alive(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request(body=b"x"))
        wire.answer()
        wire.socket.settimeout(0.1)
        for _ in range(200):
            try:
                wire.send(b"\r\n")
                if wire.socket.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                return
    pytest.fail("the connection was never closed")


def test_a_body_that_stalls_ends_in_408_and_its_handler_with_it(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST /v1/x HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nabc")
        status, _, body = wire.answer()
        assert status == 408
        assert json.loads(body)["error"]["code"] == "REQUEST_TIMEOUT"
        assert wire.closed()
    eventually(lambda: echo.tasks == 0, "the handler ends")
    still_serves(echo)


def test_a_slow_body_above_the_minimal_rate_is_served(echo: Echo) -> None:
    size = 3000
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size)
        pause = threading.Event()
        for _ in range(30):
            wire.send(b"x" * (size // 30))
            pause.wait(0.03)
        assert wire.answer()[2] == b"x" * size


def test_an_idle_keep_alive_is_closed_after_its_time(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(request(body=b"x"))
        assert wire.answer()[0] == 200
        assert wire.closed()


def test_a_declared_body_over_the_limit_is_413_and_nothing_is_read(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999\r\n\r\n")
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert echo.echo.bodies.held == 0


def test_a_client_that_keeps_sending_still_reads_its_413(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8000000\r\n\r\n")
        for _ in range(100):
            wire.try_send(b"x" * 65536)
        assert wire.answer()[0] == 413


def test_a_chunked_body_over_the_limit_is_413_in_bounded_memory(echo: Echo) -> None:
    before = psutil.Process().memory_info().rss
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(1000):
            if not wire.try_send(piece):
                break
        assert wire.answer()[0] == 413
    assert psutil.Process().memory_info().rss - before < 16 << 20
    eventually(lambda: echo.echo.bodies.held == 0, "the memory of the body is given back")


def test_a_million_tiny_chunks_are_refused_early(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            if not wire.try_send(b"1\r\nx\r\n" * 1000):
                break
        status, _, body = wire.answer()
        assert status == 400
        assert "small chunks" in json.loads(body)["error"]
    still_serves(echo)


def test_chunk_extensions_without_end_are_refused(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1;a=")
        for _ in range(200):
            if not wire.try_send(b"b" * 65536):
                break
        assert wire.answer()[0] == 400


def test_a_chunked_body_of_ordinary_chunks_is_served(echo: Echo) -> None:
    with echo.connect() as wire:
        wire.send(chunked(*[b"y" * 100] * 500))
        assert wire.answer()[2] == b"y" * 50_000


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 10_000,
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
def test_headers_over_a_limit_are_431(echo: Echo, head: bytes) -> None:
    with echo.connect() as wire:
        wire.send(head)
        assert wire.answer()[0] == 431
        assert wire.closed()


@pytest.mark.parametrize("codings", [b"gzip, chunked", b"gzip\r\nTransfer-Encoding: chunked"])
def test_a_transfer_coding_that_is_not_undone_is_501(echo: Echo, codings: bytes) -> None:
    with echo.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: " + codings + b"\r\n\r\n0\r\n\r\n")
        status, headers, body = wire.answer()
        assert (status, headers["connection"]) == (501, "close")
        assert "chunked" in body.decode()
    still_serves(echo)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost : test\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_without_detail(echo: Echo, garbage: bytes) -> None:
    with echo.connect() as wire:
        wire.send(garbage)
        status, headers, body = wire.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body)["error"]
    still_serves(echo)
