"""gRPC connections: pings, strikes and ages, seen by the official client and on bare sockets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from nonet.gateway.grpc.server import channel_arguments
from nonet.gateway.settings.grpc_settings import GrpcSettings
from tests.support import misbehaving_servables as bad

Start = Callable[..., Any]
GUARD = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7
ACK = 1
PINGING = [
    ("grpc.keepalive_time_ms", 300),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
]
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


class Http2:
    """The frames of one HTTP/2 connection, as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        self._writer.write(
            struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
        )
        await self._writer.drain()

    async def open_call(self, path: str, deadline: str = "") -> None:
        """The headers of a call, whose message never follows."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            **({"grpc-timeout": deadline} if deadline else {}),
        }
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields.items()
        )
        await self.send(HEADERS, block, flags=4, stream=1)

    async def next(self, *kinds: int) -> tuple[int, int, bytes]:
        """Kind, flags and payload of the next frame of one of ``kinds``; EOFError at the end."""
        while True:
            head = await asyncio.wait_for(self._reader.readexactly(9), GUARD)
            size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            payload = await asyncio.wait_for(self._reader.readexactly(size), GUARD)
            if kind in kinds:
                return kind, flags, payload


@asynccontextmanager
async def http2(port: int) -> AsyncIterator[Http2]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE)
    connection = Http2(reader, writer)
    await connection.send(SETTINGS)
    try:
        yield connection
    finally:
        writer.close()


async def pings_taken(connection: Http2, number: int) -> int:
    """How many of so many pings, each sent after the answer to the last, are answered before the end."""
    for count in range(number):
        await connection.send(PING, b"8 octets")
        kind, _, payload = await connection.next(PING, GOAWAY)
        if kind == GOAWAY:
            assert b"too_many_pings" in payload
            return count
    return number


async def test_a_long_call_outlives_its_clients_pings(start_face: Start) -> None:
    """As many as Triton's own defaults would not take: the one call is held until they have cut the other."""
    held, cut = bad.HangingServable(), bad.HangingServable()
    triton = GrpcSettings(http2_min_recv_ping_interval_without_data=300_000)
    ours = await start_face(
        held, channel=PINGING, limits=GrpcSettings(http2_min_recv_ping_interval_without_data=50)
    )
    theirs = await start_face(cut, channel=PINGING, limits=triton)
    call = ours.infer(1.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs.infer(1.0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    held.release.set()
    assert (await call).model_name == "doubler"


async def test_pings_of_an_idle_client_are_strikes_unless_permitted(start_face: Start) -> None:
    face = await start_face(bad.DoublingServable())
    async with http2(face.port) as connection:
        assert await pings_taken(connection, 10) < 5
    patient = await start_face(bad.DoublingServable(), limits=GrpcSettings(http2_max_ping_strikes=0))
    async with http2(patient.port) as connection:
        assert await pings_taken(connection, 50) == 50
    permitted = GrpcSettings(keepalive_permit_without_calls=True, http2_min_recv_ping_interval_without_data=0)
    face = await start_face(bad.DoublingServable(), limits=permitted)
    async with http2(face.port) as connection:
        assert await pings_taken(connection, 50) == 50


async def test_a_client_that_answers_no_ping_is_let_go(start_face: Start) -> None:
    limits = GrpcSettings(keepalive_time=100, keepalive_timeout=100, keepalive_permit_without_calls=True)
    face = await start_face(bad.DoublingServable(), limits=limits)
    async with http2(face.port) as connection:
        _, flags, _ = await connection.next(PING)
        assert flags != ACK
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await connection.next(99)


async def test_a_connection_of_age_makes_way_and_calls_go_on(start_face: Start) -> None:
    limits = GrpcSettings(max_connection_age=200, max_connection_age_grace=10_000)
    face = await start_face(bad.DoublingServable(), limits=limits)
    async with http2(face.port) as connection:
        assert (await connection.next(GOAWAY))[0] == GOAWAY
        for _ in range(20):
            assert (await face.infer(1.0)).model_name == "doubler"


async def test_a_call_that_never_sends_its_message_gets_no_worse_than_its_deadline(start_face: Start) -> None:
    """Nor do the others on its connection; one without a deadline is sent away after the face's own time."""
    face = await start_face(bad.DoublingServable(), message_timeout=0.3)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    ask = face.channel.stream_unary(MODEL_INFER)
    for timeout in (0.2, None):
        silent = ask(nothing(), timeout=timeout)
        assert (await face.infer(1.0)).model_name == "doubler"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await silent
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("model", "metadata", "status"),
    [
        ("nobody", (), 5),
        ("doubler", (("x-request-timeout-ms", "0"),), 4),
        ("doubler", (("x-request-timeout-ms", "soon"),), 3),
        ("doubler", (("x-priority", "low"),), 3),
    ],
)
async def test_what_the_headers_decide_is_answered_without_the_message(
    start_face: Start, model: str, metadata: Any, status: int
) -> None:
    face = await start_face(bad.DoublingServable())

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    call = face.channel.stream_unary(MODEL_INFER)(nothing(), metadata=metadata)
    if model == "nobody":  # the model stands in the message: nothing is decided yet
        await asyncio.sleep(0)
        assert not call.done()
        call.cancel()
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, GUARD)
    assert caught.value.code().value[0] == status


def test_the_settings_are_the_arguments_of_the_library() -> None:
    given = GrpcSettings(
        keepalive_time=11,
        keepalive_timeout=12,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=13,
        http2_min_recv_ping_interval_without_data=14,
        http2_max_ping_strikes=15,
        max_connection_age=16,
        max_connection_age_grace=17,
    )
    assert [value for _, value in channel_arguments(given)] == [11, 12, 12, 1, 13, 14, 15, 16, 17]
    assert not any("age" in name for name, _ in channel_arguments(GrpcSettings()))
