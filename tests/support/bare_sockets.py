"""HTTP on bare sockets, for what no well-behaved client does: half requests, tiny chunks, sudden ends."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import select
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import TracebackType

GUARD = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One parsed response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


def request_bytes(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A complete HTTP/1.1 request with Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def infer_bytes(
    model: str, inputs: list[dict[str, object]], headers: Mapping[str, str] | None = None
) -> bytes:
    """A complete JSON inference request."""
    body = json.dumps({"inputs": inputs}).encode()
    return request_bytes("POST", f"/v2/models/{model}/infer", body, headers)


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(status_line.split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


class Wire:
    """A blocking client socket that sends exactly what it is told. Usable as a context manager."""

    def __init__(self, port: int, timeout: float = GUARD) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send; False if the server has closed the connection meanwhile."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def finish_sending(self) -> None:
        """Half-close: the peer reads end of file, and may still answer."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave without a goodbye: the peer gets RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def has_answer(self, wait: float = 0.0) -> bool:
        """Whether the server has sent something (or closed) within ``wait`` seconds."""
        if self._buffer:
            return True
        return bool(select.select([self.socket], [], [], wait)[0])

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._more():
                raise ConnectionError("the server closed inside a body")
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _take_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise ConnectionError(f"the server closed; it had sent {self._buffer[:200]!r}")
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def reply(self) -> Reply:
        """Read one response. Raises ConnectionError if the server closes first, TimeoutError at the guard."""
        status, headers = _parse_head(self._take_until(b"\r\n\r\n"))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self._take_until(b"\r\n").split(b";")[0], 16):
                body += self._take(size)
                self._take(2)
            self._take_until(b"\r\n")
        else:
            body = self._take(int(headers.get("content-length", "0")))
        return Reply(status, headers, body)

    def closed_by_server(self) -> bool:
        """Read to the end; True when the server closes, with or without a last response.

        Raises TimeoutError when it does not close before the socket's timeout."""
        try:
            while self.socket.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
        return True


class AsyncWire:
    """One keep-alive connection in asyncio: whole requests, and sudden ends. Ten thousand fit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> AsyncWire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self) -> Reply:
        status, headers = _parse_head((await self._reader.readuntil(b"\r\n\r\n"))[:-4])
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(status, headers, body)

    async def ask(self, data: bytes) -> Reply:
        """Send a request and read its response."""
        await self.send(data)
        return await asyncio.wait_for(self.reply(), GUARD)

    def abort(self) -> None:
        """Leave at once, without a goodbye."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionResetError, BrokenPipeError):
            return


def gzip_bomb(wire_bytes: int) -> tuple[Iterator[bytes], int]:
    """A valid gzip stream of about ``wire_bytes`` bytes that decodes to a thousand times as much.

    Returns the pieces, and the decoded size. The pieces are one full-flushed block of zeros over and over,
    so making them costs nothing.
    """
    block_size = 8 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(block_size)) + packer.flush(zlib.Z_FULL_FLUSH)
    repeats = max(1, wire_bytes // len(block))

    def pieces() -> Iterator[bytes]:
        yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
        for _ in range(repeats):
            yield block
        yield zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
        yield struct.pack("<II", 0, repeats * block_size & 0xFFFFFFFF)

    return pieces(), repeats * block_size
