"""Floor identification in a process of its own, and a gateway in front of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.building_gateway import BUILDINGS, identify, submitted, toy_settings, wait_for
from tests.support.running_server import RunningServer, assert_refused, eventually, free_port

HOME = {"00:00:00:00:00:01": -40, "00:00:00:00:00:02": -60}


def test_fitted_buildings_are_served_by_a_service_of_their_own(
    start_server: Callable[..., RunningServer], own_repository: Path, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "service.log"
    command = [sys.executable, "-m", "nonet.cli.main", "service", "floor_identification"]
    command += ["--port", str(port), "--repository", str(own_repository)]
    config = tmp_path / "service.toml"
    config.write_text("[repository]\npoll_seconds = 0.3\n")
    topology = tmp_path / "topology.toml"
    topology.write_text(f'[[service]]\nname = "floor_identification"\naddress = "127.0.0.1:{port}"\n')
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        service = subprocess.Popen(
            [*command, "--config", str(config)], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
    try:
        eventually(lambda: str(port) in log.read_text(), "the service listens", 60)
        settings = toy_settings()
        settings["repository"]["keep_versions"] = 1
        server = start_server(own_repository, settings, arguments=("--topology", str(topology)))
        wait_for(server, submitted(server, "quick_home"), "succeeded")
        eventually(lambda: identify(server, "quick_home", HOME).status_code == 200, "it has come through")
        reply = identify(server, "quick_home", HOME, {"zz": -3})
        home, foreign = reply.json()["floors"]
        assert (home["heard"], foreign["floor"]) == (2, None)
        assert reply.headers["X-Device"].startswith(("remote:", "cache"))
        reply = identify(server, "quick_home", HOME, {"a": 5})
        assert_refused(reply, 400, "scan 1", "-150 to 0")
        assert reply.json()["error"]["param"] == "scans"
        body = server.http.get(f"{BUILDINGS}/quick_home").json()
        assert (body["floors"], body["facts"]["scans"]) == (["B1", "F1", "F2"], 3)
        assert server.http.get(f"{BUILDINGS}/quick_home/picture").status_code == 200
        assert_refused(server.http.delete(f"{BUILDINGS}/quick_home"), 501)
        # Old versions go here too, once the service has gone over to the new one.
        wait_for(server, submitted(server, "quick_home", seed=1), "succeeded")
        folder = own_repository / "floors_quick_home"
        eventually(lambda: not (folder / "1").exists(), "the old version is gone")
        assert identify(server, "quick_home", HOME).headers["X-Model-Version"] == "2"
    finally:
        service.terminate()
        assert service.wait(30) == 0
    assert "Traceback" not in log.read_text()
