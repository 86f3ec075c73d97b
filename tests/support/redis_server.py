"""A real Redis of a test's own, which can be killed, hung and started again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.running_server import eventually, free_port

SERVER = shutil.which("redis-server")
PASSWORD = "a-secret-of-redis"


class RedisServer:
    """One ``redis-server`` on a free port, with an append-only file and a password; started when made.

    Args:
        folder: where its files lie.
        options: further words of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        if SERVER is None:
            pytest.skip("no redis-server here: apt-get install redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self._command = [
            SERVER,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD),
            *(
                "--dir",
                str(folder),
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--daemonize",
                "no",
            ),
            *options,
        ]
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, *, wait: bool = True) -> None:
        """Start it, with what its files hold."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        if wait:
            eventually(self._answers, "Redis answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of :meth:`hang`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """The end."""
        self.client.close()
        self.kill()


@contextlib.contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """A Redis for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), *options)
        try:
            yield server
        finally:
            server.close()
