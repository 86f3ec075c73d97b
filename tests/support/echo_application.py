"""A small application behind the real connection and guard, and the bytes to attack it with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from nonet.gateway.http import Bodies, HttpSettings, RequestContext, RequestGuard
from tests.support.http_server import HttpServer

FAST = HttpSettings(
    max_body_bytes=1 << 20,
    max_header_bytes=8192,
    header_timeout=0.4,
    body_grace=0.4,
    body_min_rate=1000.0,
    body_timeout=3.0,
    keep_alive=1.0,
    linger_timeout=0.5,
    write_timeout=0.5,
    max_pipeline=8,
    free_chunks=64,
    min_chunk_bytes=16,
)


class EchoApp:
    """Answers what it was sent; ``/hold`` waits for its release or its end, ``/refuse`` does not read."""

    def __init__(self, settings: HttpSettings) -> None:
        self.bodies = Bodies(settings)
        self.release = threading.Event()
        self.holding = 0
        self.cancelled = 0
        self.served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = 200, b""
        if scope["path"] == "/hold":
            body = await self._hold()
        elif scope["path"] == "/large":
            body = b"x" * (32 << 20)
        elif scope["path"] == "/crash":
            raise RuntimeError("a secret at /etc/secret")
        elif scope["path"] != "/refuse":
            body = await self.bodies.read(RequestContext.of(scope), receive)
        self.served += 1
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _hold(self) -> bytes:
        self.holding += 1
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.holding -= 1
        return b"held"


class Echo(HttpServer):
    def __init__(self, settings: HttpSettings = FAST, draining: Callable[[], bool] = lambda: False) -> None:
        self.echo = EchoApp(settings)
        super().__init__(lambda: RequestGuard(self.echo, bodies=self.echo.bodies), settings, draining)


def request(path: str = "/", body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(*chunks: bytes, path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def still_serves(server: HttpServer) -> None:
    with server.connect() as wire:
        wire.send(request(body=b"alive"))
        assert wire.answer()[2] == b"alive"
