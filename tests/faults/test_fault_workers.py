"""Faults 69 and 72: of several processes on one port, one is killed. Callers of the others do not notice, it
is replaced, the metrics of any of them are those of all, and one signal ends them together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import psutil
import pytest

from nonet.gateway.metrics.siblings import Siblings
from tests.support import handmade_networks
from tests.support.running_server import RunningServer, eventually, running

WORKERS = 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of two workers."""
    root: Path = tmp_path_factory.mktemp("workers") / "models"
    root.mkdir()
    handmade_networks.add_classifier(root, "shop_small", 4, family="shop", top1=0.6)
    settings = {"scheduler": {"lanes": 1}, "server": {"workers": WORKERS}, "cache": {"enabled": False}}
    with running(root, tmp_path_factory.mktemp("workers_server"), settings) as started:
        yield started


def workers(served: RunningServer) -> dict[int, psutil.Process]:
    return {child.pid: child for child in served.process.children()}


def listeners(served: RunningServer, process: psutil.Process) -> set[int]:
    """Ports on which a process takes connections."""
    return {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}


@contextlib.contextmanager
def of_one_worker(served: RunningServer, process: psutil.Process) -> Iterator[HTTPConnection]:
    """A connection that is this worker's: the kernel chooses, so connect until it has."""
    while True:
        connection = HTTPConnection("127.0.0.1", served.http_port, timeout=60.0)
        assert status(connection) == 200
        ours = connection.sock.getsockname()[1]
        if any(each.raddr and each.raddr.port == ours for each in process.net_connections("tcp")):
            break
        connection.close()
    yield connection
    connection.close()


def status(connection: HTTPConnection, path: str = "/v2/health/live") -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_every_worker_listens_for_itself_on_both_ports(served: RunningServer) -> None:
    assert len(workers(served)) == WORKERS
    for process in workers(served).values():
        assert {served.http_port, served.grpc_port} <= listeners(served, process)


def test_case_69_callers_of_the_others_do_not_notice_a_worker_that_is_killed(served: RunningServer) -> None:
    before = workers(served)
    victim, witness = before.values()
    with of_one_worker(served, witness) as client:
        victim.kill()
        for _ in range(20):
            assert status(client, "/v2/health/ready") == 200
        eventually(
            lambda: (
                len(workers(served)) == WORKERS
                and victim.pid not in workers(served)
                and all(served.http_port in listeners(served, each) for each in workers(served).values())
            ),
            "the worker is replaced",
        )
        assert status(client, "/v2/health/ready") == 200
    assert "starting another" in served.log


def test_case_72_any_worker_tells_the_metrics_of_all_also_of_one_that_died(served: RunningServer) -> None:
    def asked() -> float:
        with httpx.Client(base_url=served.url, timeout=60.0) as client:
            page = client.get("/metrics")
            assert page.status_code == 200
        lines = [line for line in page.text.splitlines() if 'route="/v2/health/live"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("nonet_requests_total"))

    start = asked()
    for process in workers(served).values():
        with of_one_worker(served, process) as client:
            for _ in range(10):
                assert status(client) == 200
    eventually(lambda: asked() >= start + 20, "every worker has told what it counted")
    counted = asked()
    next(iter(workers(served).values())).kill()
    eventually(lambda: len(workers(served)) == WORKERS, "the worker is replaced")
    for _ in range(10):
        assert asked() >= counted


def test_counters_of_the_dead_count_and_their_gauges_do_not(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Told(Collector):
        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            yield CounterMetricFamily("asked", "Calls", value=3)
            yield GaugeMetricFamily("waiting", "Requests", value=2)
            yield GaugeMetricFamily("nonet_ready", "Ready", value=1)

    living = {1, 2}
    for process in (1, 2, 3):
        Siblings(tmp_path, process).write([Told()])
    registry = CollectorRegistry()
    registry.register(Siblings(tmp_path, 1, lambda process: process in living).total([Told()]))
    assert registry.get_sample_value("asked_total") == 9
    assert registry.get_sample_value("waiting") == 4
    assert registry.get_sample_value("nonet_ready") == 1


def test_what_only_one_process_can_keep_is_refused(tmp_path: Path) -> None:
    handmade_networks.add_classifier(tmp_path, "shop_small", 4, family="shop", top1=0.6)
    settings: dict[str, dict[str, object]] = {
        "server": {"workers": 2},
        "auth": {"keys": {"lab": "a-long-enough-secret"}, "requests_per_second": 5.0},
    }
    server = RunningServer(tmp_path, tmp_path / "server", settings, wait=False)
    assert server.popen.wait(60) == 2
    assert "auth.requests_per_second needs redis.url" in server.log
    server.kill()
