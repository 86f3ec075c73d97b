"""A receiver of webhooks on a port of its own: a real HTTP server that answers as a test says."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from nonet.jobs.webhooks import signature


class Letter:
    """One request as it came."""

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def id(self) -> str:
        return self.headers["Nonet-Webhook-Id"]

    @property
    def job(self) -> dict[str, Any]:
        content = json.loads(self.body)
        assert content["type"] == "job.ended"
        job: dict[str, Any] = content["job"]
        return job

    def signed_with(self, secret: str) -> bool:
        timestamp = self.headers["Nonet-Webhook-Timestamp"]
        return self.headers["Nonet-Webhook-Signature"] == signature(
            secret.encode(), self.id, timestamp, self.body
        )


class Receiver:
    """``with Receiver(answer) as receiver``; ``answer(number)`` is the status of letter 0, 1, ...

    Args:
        port: where to listen, so that one can come up later where another was expected.
        location: a ``Location`` header of the answers.
    """

    def __init__(
        self, answer: Callable[[int], int] = lambda _: 204, *, port: int = 0, location: str = ""
    ) -> None:
        self.letters: list[Letter] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._lock:
                    number = len(receiver.letters)
                    receiver.letters.append(Letter(self.path, dict(self.headers), body))
                self.send_response(answer(number))
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                """Nothing: what came is in ``letters``."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook?of=me"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
