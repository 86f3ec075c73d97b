"""What would do harm later is said at the start, and a process says that it lives before it is ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.test_fault_start import serve
from tests.support import handmade_networks, small_filesystem
from tests.support.running_server import RunningServer, assert_refused, eventually, write_settings

Start = Callable[..., RunningServer]
ECHO = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]


def test_all_mistakes_are_named_at_once_with_status_2(tmp_path: Path) -> None:
    config = write_settings(
        tmp_path / "nonet.toml", {"server": {"grace": -1, "hots": "x"}, "lodging": {"level": "debug"}}
    )
    topology = tmp_path / "topology.toml"
    topology.write_text(
        '[[service]]\nname = "cooking"\naddress = "127.0.0.1:1"\n'
        '[[service]]\nadress = "127.0.0.1:1"\nname = "recognition"\n'
    )
    status, text = serve(
        tmp_path,
        *("--config", str(config), "--topology", str(topology)),
        environment={"NONET_CACHE__TTL": "never", "NONET_SERVER__GRACEE": "3"},
    )
    assert status == 2
    for word in ("hots", "host", "lodging", "grace", "ttl", "NONET_SERVER__GRACEE", "cooking", "adress"):
        assert word in text, text
    assert "8 mistakes" in text, text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_nobody_beyond_this_machine_is_let_in_without_keys(host: str, tmp_path: Path) -> None:
    status, text = serve(tmp_path, "--host", host)
    assert status == 2
    assert "auth.keys" in text
    assert "allow_without_keys" in text


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--allow-without-keys",), {}),
        ((), {"NONET_SERVER__ALLOW_WITHOUT_KEYS": "true"}),
        ((), {"NONET_AUTH__KEYS": '{"me": "secret"}'}),
    ],
)
def test_it_listens_for_others_with_keys_or_when_told_so(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    start_server: Start,
    own_repository: Path,
) -> None:
    started = start_server(
        own_repository, arguments=("--host", "0.0.0.0", *arguments), environment=environment
    )
    assert started.http.get("/v2/health/live").status_code == 200


def test_it_lives_before_its_models_are_loaded(start_server: Start, own_repository: Path) -> None:
    handmade_networks.add_slow(own_repository, "slow", handmade_networks.busy_trips(2.0), batch=0)
    handmade_networks.add_scaled(own_repository, "scaled", 2, 1)
    started = start_server(own_repository, wait=False)

    def live() -> bool:
        try:
            return started.http.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    eventually(live, "it lives")
    assert "is ready" not in started.log
    reply = started.http.get("/v2/health/ready")
    assert reply.status_code == 503
    assert "loaded" in reply.json()["error"]
    assert started.http.get("/metrics").status_code == 200
    reply = started.infer("scaled", ECHO)
    assert "is ready" not in started.log
    assert_refused(reply, 503, "loading its models")
    started.wait_ready()
    assert started.http.get("/v2/health/ready").status_code == 200
    assert started.infer("scaled", ECHO).json()["outputs"][0]["data"] == [2.0]


def test_a_signal_before_the_models_are_loaded_ends_it(start_server: Start, own_repository: Path) -> None:
    handmade_networks.add_slow(own_repository, "slow", handmade_networks.busy_trips(3.0), batch=0)
    started = start_server(own_repository, wait=False)
    eventually(lambda: _listens(started.http_port), "it listens")
    started.popen.send_signal(signal.SIGINT)
    assert started.popen.wait(30) == 0
    assert "is ready" not in started.log


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_job_folder_that_cannot_be_written_is_said_at_the_start(
    start_server: Start, small_repository: Path, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    started = start_server(small_repository, {"jobs": {"path": str(in_the_way / "jobs")}})
    assert "jobs.path" in started.log
    assert "waits for a folder of its jobs" in started.log
    reply = started.http.get("/v2/health/ready")
    assert reply.status_code == 503
    assert "jobs" in reply.json()["error"]
    assert str(tmp_path) not in reply.text
    assert started.infer("echo_fp32", ECHO).status_code == 200
    in_the_way.unlink()
    eventually(lambda: started.http.get("/v2/health/ready").status_code == 200, "it comes back by itself")


def test_a_job_folder_that_becomes_read_only_ends_readiness(
    start_server: Start, small_repository: Path, tmp_path: Path
) -> None:
    """A full disk does not: that passes, and is told to those who meet it."""
    with small_filesystem.mounted(tmp_path / "disk") as disk:
        jobs = disk / "jobs"
        started = start_server(small_repository, {"jobs": {"path": str(jobs)}})
        small_filesystem.fill(disk)
        assert started.http.get("/v2/health/ready").status_code == 200
        cover = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(jobs)]
        if subprocess.run(cover, capture_output=True).returncode != 0:
            pytest.skip("a folder cannot be covered by a read-only one here")
        try:
            eventually(lambda: started.http.get("/v2/health/ready").status_code == 503, "readiness falls")
            assert started.http.get("/v2/health/live").status_code == 200
        finally:
            subprocess.run(["umount", str(jobs)], check=True)
        eventually(lambda: started.http.get("/v2/health/ready").status_code == 200, "readiness returns")
        assert started.stop() == 0


def test_a_service_that_the_topology_lacks_is_named(start_server: Start, tmp_path: Path) -> None:
    topology = tmp_path / "topology.toml"
    topology.write_text('[[service]]\nname = "raw_image"\naddress = "127.0.0.1:1"\n')
    started = start_server(tmp_path / "none", arguments=("--topology", str(topology)))
    picture = Path(__file__).parents[2] / "docs" / "examples" / "bananas.jpg"
    reply = started.http.post("/v1/classify", files={"image": picture.read_bytes()})
    assert_refused(reply, 501, "recognition", "topology")
    assert reply.json()["error"]["code"] == "SERVICE_NOT_IN_TOPOLOGY"
    mosaic = Path(__file__).parents[2] / "docs" / "examples" / "mosaic.png"
    reply = started.http.post(
        "/v1/raw/develop", files={"raw": mosaic.read_bytes()}, data={"cfa": "GRBG", "noise": "5"}
    )
    assert_refused(reply, 503, "raw_image", "does not answer")
    assert "127.0.0.1" not in reply.text
    reply = started.http.get("/v2/health/ready")
    assert "raw_image" in reply.json()["error"]
    assert os.fspath(topology) not in reply.text
