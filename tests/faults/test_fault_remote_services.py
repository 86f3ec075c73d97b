"""Services in processes of their own behind the gateway: one is killed, all are killed, they come back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.running_server import RunningServer, assert_refused, eventually, free_port
from tests.support.slow_requests import fresh_value

MODEL = "echo_fp32"


class Service:
    """One ``nonet service recognition`` process; it can be killed and started again on its port."""

    def __init__(self, repository: Path, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._repository, self._log = repository, folder / "service.log"
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        self.popen = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nonet.cli.main", "service", "recognition"]
        command += ["--port", str(self.port), "--repository", str(self._repository)]
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._log.parent, env=self._environment
            )
        eventually(lambda: str(self.port) in self._log.read_text(), "the service is ready", 60.0)
        return self.popen

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def services(small_repository: Path, tmp_path: Path) -> Iterator[list[Service]]:
    started = [Service(small_repository, tmp_path / f"service{index}") for index in range(2)]
    yield started
    for service in started:
        service.kill()


@pytest.fixture
def gateway(
    services: list[Service], own_repository: Path, tmp_path: Path, start_server: Callable[..., RunningServer]
) -> RunningServer:
    topology = tmp_path / "topology.toml"
    topology.write_text(
        "".join(
            f'[[service]]\nname = "recognition"\naddress = "127.0.0.1:{service.port}"\n'
            for service in services
        )
    )
    server = start_server(own_repository, arguments=("--topology", str(topology)))
    eventually(lambda: ready(server), "both services are found")
    return server


def ready(server: RunningServer) -> bool:
    return server.http.get("/v2/health/ready").status_code == 200


def ask(server: RunningServer) -> Any:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [fresh_value()] * 4}]
    return server.infer(MODEL, inputs)


def test_one_killed_service_fails_no_request_and_the_metrics_still_add_up(
    gateway: RunningServer, services: list[Service]
) -> None:
    replies = [ask(gateway) for _ in range(10)]
    services[0].kill()
    replies += [ask(gateway) for _ in range(30)]
    assert {reply.status_code for reply in replies} == {200}
    assert ready(gateway)
    assert gateway.metric("nv_inference_request_success", model=MODEL) == 40
    assert gateway.metric("nv_inference_request_failure", model=MODEL) == 0
    assert {reply.headers["X-Device"] for reply in replies[-10:]} == {"remote:recognition-2"}
    for told in (*replies, gateway.http.get("/v1/models"), gateway.http.get("/metrics")):
        assert str(services[1].port) not in f"{told.headers} {told.text}"


def test_health_never_says_ready_while_every_service_is_dead_and_recovers_alone(
    gateway: RunningServer, services: list[Service]
) -> None:
    for service in services:
        service.kill()
    reply = ask(gateway)
    assert_refused(reply, 503)
    eventually(lambda: not ready(gateway), "readiness follows the services")
    assert gateway.http.get("/v2/health/live").status_code == 200
    assert gateway.http.get("/metrics").status_code == 200
    assert_refused(ask(gateway), 503)
    services[1].start()
    eventually(lambda: ready(gateway), "the gateway finds the service again")
    assert ask(gateway).status_code == 200


def test_the_gateway_stays_small_and_connected_while_a_service_flaps(
    gateway: RunningServer, services: list[Service]
) -> None:
    ask(gateway)
    descriptors = gateway.descriptors()
    for _ in range(3):
        services[0].kill()
        assert ask(gateway).status_code == 200
        services[0].start()
    assert gateway.descriptors() <= descriptors + 10
    assert psutil.pid_exists(gateway.popen.pid)
