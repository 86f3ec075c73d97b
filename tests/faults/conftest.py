"""Fixtures of the fault tests: a server with one lane, so that what waits and what batches is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.support import capture_gateway
from tests.support.bare_sockets import Wire, infer_bytes
from tests.support.redis_server import RedisServer, running_redis
from tests.support.running_server import RunningServer, eventually, running
from tests.support.shared_jobs import Site
from tests.support.slow_requests import fresh_value, slow_input
from tests.support.small_filesystem import mounted


@pytest.fixture(scope="session")
def one_lane(fault_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A gateway that executes one batch at a time."""
    settings = {"scheduler": {"lanes": 1, "default_timeout": 300.0}, "repository": {"poll_seconds": 0.0}}
    with running(fault_repository, tmp_path_factory.mktemp("one_lane"), settings) as started:
        yield started


class Busy:
    """A ``with`` block in which the only lane of ``server`` executes one slow request and others wait.

    What is sent inside therefore queues up: nothing else starts for at least one slow execution.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._wires: list[Wire] = []

    def __enter__(self) -> Busy:
        try:
            eventually(self._others_wait, "one slow request runs and others wait")
        except BaseException:
            self._close()
            raise
        return self

    @property
    def requests(self) -> int:
        """How many requests were sent to keep the lane occupied."""
        return len(self._wires)

    def _others_wait(self) -> bool:
        """Whether enough wait; more are sent when those before were served before anybody looked."""
        if self._server.pending("slow") >= 3:
            return True
        if self._server.pending("slow") == 0:
            for _ in range(5):
                self._wires.append(Wire(self._server.http_port))
                self._wires[-1].send(infer_bytes("slow", slow_input(fresh_value())))
        return False

    def _close(self) -> None:
        for wire in self._wires:
            wire.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert {wire.reply().status for wire in self._wires} == {200}
        finally:
            self._close()


@pytest.fixture
def busy(one_lane: RunningServer) -> Busy:
    """``with busy:`` keeps the lane of :func:`one_lane` occupied."""
    return Busy(one_lane)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill."""
    with running_redis() as made:
        yield made


@pytest.fixture
def site(
    own_redis: RedisServer, tmp_path: Path, start_server: Callable[..., RunningServer]
) -> Iterator[Site]:
    """Machines that share their jobs, which the toy worker runs."""
    made = Site(own_redis, tmp_path, start_server)
    yield made
    own_redis.go_on()
    made.close()


@pytest.fixture
def raw_site(
    own_redis: RedisServer, tmp_path: Path, start_server: Callable[..., RunningServer]
) -> Iterator[Site]:
    """Machines that share their jobs, which the real worker runs, and have networks for captures."""
    made = Site(own_redis, tmp_path, start_server, capture_gateway.settings)
    capture_gateway.fill_repository(made.repository)
    yield made
    made.close()
