"""Case 63: a request that kills its worker is not run for ever, and its neighbours get their answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import poisoned_service
from tests.support.poisoned_service import POISON
from tests.support.running_server import RunningServer, assert_refused, eventually, free_port
from tests.support.slow_requests import fresh_value

MODEL = "echo_fp32"


class Service:
    """One ``nonet service recognition`` that poison ends."""

    def __init__(self, repository: Path, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._log = folder / "service.log"
        self._repository = repository
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        self._environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.starts = 0
        self.begin()

    def begin(self) -> None:
        command = [sys.executable, poisoned_service.__file__, "service", "recognition"]
        command += ["--port", str(self.port), "--repository", str(self._repository)]
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._log.parent, env=self._environment
            )
        self.starts += 1

    @property
    def ready(self) -> bool:
        return self.popen.poll() is None and str(self.port) in self._log.read_text()

    @property
    def dead(self) -> bool:
        return self.popen.poll() is not None

    def stop(self) -> None:
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def services(small_repository: Path, tmp_path: Path) -> Iterator[list[Service]]:
    started = [Service(small_repository, tmp_path / f"service{index}") for index in range(3)]
    for service in started:
        eventually(lambda of=service: of.ready, "the service is ready", 60.0)
    yield started
    for service in started:
        service.stop()


@pytest.fixture
def gateway(
    services: list[Service], own_repository: Path, tmp_path: Path, start_server: Callable[..., RunningServer]
) -> RunningServer:
    topology = tmp_path / "topology.toml"
    entries = [f'[[service]]\nname = "recognition"\naddress = "127.0.0.1:{each.port}"\n' for each in services]
    topology.write_text("".join(entries))
    server = start_server(own_repository, arguments=("--topology", str(topology)))
    for service in services:
        eventually(lambda of=service: healthy(server, of, services), "the service is found")
    return server


def healthy(server: RunningServer, service: Service, services: list[Service]) -> bool:
    """By the last that the gateway's log says of the service."""
    name = f"remote:recognition-{services.index(service) + 1} at "
    said = [line for line in server.log.splitlines() if name in line and " is " in line]
    return bool(said) and said[-1].endswith("is healthy")


def ask(server: RunningServer, value: float) -> httpx.Response:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}]
    return server.infer(MODEL, inputs)


def back(server: RunningServer, services: list[Service]) -> None:
    """Start those that died, and wait until the gateway has all of them."""
    for service in services:
        if service.dead:
            service.begin()
            eventually(lambda of=service: of.ready, "the service is back", 60.0)
    for service in services:
        eventually(lambda of=service: healthy(server, of, services), "the service is found again", 60.0)


def test_case_63_what_kills_two_workers_is_run_no_more(
    gateway: RunningServer, services: list[Service]
) -> None:
    reply = ask(gateway, POISON)
    assert_refused(reply, 422, "ended the process of its model 2 times")
    # Its connections close a moment before a process has ended.
    eventually(lambda: sum(service.dead for service in services) == 2, "two processes have ended")
    assert ask(gateway, fresh_value()).status_code == 200
    back(gateway, services)
    for _ in range(5):
        assert_refused(ask(gateway, POISON), 422, "not run again")
    assert not any(service.dead for service in services)
    assert ask(gateway, fresh_value()).status_code == 200


def test_case_63_those_beside_it_are_answered(gateway: RunningServer, services: list[Service]) -> None:
    values = [fresh_value() for _ in range(12)]
    values.insert(6, POISON)
    with ThreadPoolExecutor(len(values)) as pool:
        replies: list[Any] = list(pool.map(lambda value: ask(gateway, value), values))
    told = {value: reply.status_code for value, reply in zip(values, replies, strict=True)}
    assert told.pop(POISON) in (422, 503)
    assert set(told.values()) == {200}, told
    assert sum(service.dead for service in services) <= 2
