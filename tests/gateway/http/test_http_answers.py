"""How answers are framed on the wire, and how bodies reach their readers, on real sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.http import Bodies, HttpSettings, RequestContext
from tests.support.http_server import HttpServer

Answer = Callable[[Any, Any], Awaitable[None]]


class Script:
    """An application that plays what the test gives it."""

    def __init__(self) -> None:
        self.answer: Answer
        self.bodies = Bodies(HttpSettings())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.answer(receive, send)


class Scripted(HttpServer):
    def __init__(self) -> None:
        self.script = Script()
        super().__init__(lambda: self.script)

    def plays(self, *messages: dict[str, Any]) -> None:
        """Answer each request with these messages."""

        async def answer(receive: Any, send: Any) -> None:
            for message in messages:
                await send(dict(message))

        self.script.answer = answer


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("size", [0, 5, 64 * 1024, 3_000_000])
def test_an_answer_of_known_length_arrives_whole(scripted: Scripted, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    scripted.plays(start((b"Content-Length", b"%d" % size), (b"X-Tab", b"a\tb")), body(data))
    with httpx.Client(base_url=scripted.url) as client:
        for _ in range(2):
            answer = client.get("/")
            assert (answer.status_code, answer.content, answer.headers["x-tab"]) == (200, data, "a\tb")


def test_an_answer_of_unknown_length_is_chunked(scripted: Scripted) -> None:
    scripted.plays(start(), body(b"one ", more=True), body(b"", more=True), body(b"two"))
    with httpx.Client(base_url=scripted.url) as client:
        for _ in range(2):
            answer = client.get("/")
            assert (answer.headers["transfer-encoding"], answer.content) == ("chunked", b"one two")


def test_head_and_statuses_without_a_body_have_none(scripted: Scripted) -> None:
    with httpx.Client(base_url=scripted.url) as client:
        scripted.plays(start((b"content-length", b"5")), body(b"hello"))
        assert client.head("/").headers["content-length"] == "5"
        scripted.plays(start(status=204), body(b""))
        assert "transfer-encoding" not in client.get("/").headers
        scripted.plays(start((b"content-length", b"5")), body(b"hello"))
        assert client.get("/").content == b"hello"


def test_an_answer_that_closes_says_so_and_closes(scripted: Scripted) -> None:
    scripted.plays(start((b"content-length", b"2"), (b"connection", b"close")), body(b"ok"))
    with scripted.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        status, headers, content = wire.answer()
        assert (status, headers["connection"], content) == (200, "close", b"ok")
        assert wire.closed()


@pytest.mark.parametrize(
    "header", [(b"x-a", b"1\r\nx-b: 2"), (b"x-a\r\n", b"1"), (b"x a", b"1"), (b"x-a", b"\x00")]
)
def test_a_header_that_would_break_the_head_never_leaves(
    scripted: Scripted, header: tuple[bytes, bytes]
) -> None:
    scripted.plays(start(header, (b"content-length", b"2")), body(b"ok"))
    with scripted.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.closed()


@pytest.mark.parametrize("length", [b"3", b"1"])
def test_an_answer_that_is_not_as_long_as_it_says_ends_the_connection(
    scripted: Scripted, length: bytes
) -> None:
    scripted.plays(start((b"content-length", length)), body(b"ok"))
    with scripted.connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        while wire.socket.recv(4096):
            pass


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(scripted: Scripted) -> None:
    async def echo(receive: Any, send: Any) -> None:
        data = (await receive())["body"]
        await send(start((b"content-length", b"%d" % len(data))))
        await send(body(data))

    scripted.script.answer = echo
    with scripted.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert wire.socket.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"abc")
        assert wire.answer()[2] == b"abc"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.integers(0, 300))
async def test_a_body_in_pieces_is_gathered_with_the_offset_aligned(pieces: list[bytes], offset: int) -> None:
    messages = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
        for place, piece in enumerate(pieces)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    gathered = await Bodies(HttpSettings()).read_aligned(RequestContext(0.0), receive, offset)
    assert bytes(gathered) == b"".join(pieces)
    if len(pieces) > 1 and offset < len(gathered):
        address = np.frombuffer(gathered, np.uint8).__array_interface__["data"][0]
        assert (address + offset) % 64 == 0
