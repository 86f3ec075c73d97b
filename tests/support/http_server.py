"""An HTTP server in this process, on a real socket, and the raw connections that attack it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
import uvloop

from nonet.gateway.http import HttpSettings, server_config

GUARD = 20.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the test runner."""
        yield


class HttpServer:
    """Serves ``app`` from a thread with an event loop of its own.

    Args:
        make_app: called in the loop's thread; makes the application.
        settings: limits.
        draining: hook of the protocol.
    """

    def __init__(
        self,
        make_app: Callable[[], Any],
        settings: HttpSettings | None = None,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make_app = make_app
        self._settings = settings or HttpSettings()
        self._draining = draining
        self._up = threading.Event()
        self._error: BaseException | None = None
        self.port = 0
        self.server: _Server
        self.loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(GUARD), "the server did not start"
        if self._error is not None:
            raise self._error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        app = self._make_app()
        if asyncio.iscoroutine(app):
            app = await app
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server = _Server(server_config(app, self._settings, draining=self._draining, grace=5.0))
        serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        while not self.server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._up.set()
        await serving

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(GUARD)
        assert not self._thread.is_alive(), "the server did not stop"

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def tasks(self) -> int:
        return len(self.server.server_state.tasks)

    def connect(self) -> Wire:
        return Wire(self.port)


class Wire:
    """A raw TCP connection to a server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=GUARD)
        self._rest = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send; False if the server has closed."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        self._rest += data
        return data

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers (lower case), body."""
        while b"\r\n\r\n" not in self._rest:
            assert self._more(), f"closed in the middle of a head: {self._rest!r}"
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(self._rest) < length:
            assert self._more(), "closed in the middle of a body"
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(first.split(" ")[1]), headers, body

    def closed(self) -> bool:
        """Wait for the server to close; False if it sends something instead."""
        if self._rest:
            return False
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until ``condition()`` is true; AssertionError naming ``what`` if it never is."""
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)
