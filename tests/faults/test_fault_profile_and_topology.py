"""What ``nonet models profile`` measured, in a service of its own with a gateway in front of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository.config import read_config
from nonet.runtime.repository.integrity import FileHasher
from nonet.runtime.repository.layout import CONFIG_FILE, scan
from nonet.runtime.repository.loader import prepare_version
from nonet.runtime.repository.selection import profile_version
from tests.support import handmade_networks
from tests.support.running_server import RunningServer, eventually, free_port


def profile_all(repository: Path, cache: Path) -> None:
    """What ``nonet models profile`` does, into ``cache``, as short as it can be."""
    store = ProfileStore(cache)
    for folder in scan(repository).values():
        config = read_config(folder.path / CONFIG_FILE)
        for version in folder.versions:
            prepared = prepare_version(repository, folder, version, config, hasher=FileHasher())
            sizes = [1, max(1, prepared.config.max_batch_size)]
            profile = profile_version(
                prepared, BackendOptions(), store.machine, batch_sizes=sizes, budget=0.01
            )
            store.write(profile)


@pytest.fixture
def repository(own_repository: Path) -> Path:
    handmade_networks.add_classifier(own_repository, "colours", 8, family="toys", top1=0.5)
    handmade_networks.add_identity(own_repository, "echo", "FP32", (4,))
    return own_repository


@pytest.fixture
def service(repository: Path, tmp_path: Path) -> Iterator[int]:
    """A service of the repository with a cache of its own in ``tmp_path / "cache"``; its port."""
    port, log, config = free_port(), tmp_path / "service.log", tmp_path / "service.toml"
    config.write_text("[repository]\npoll_seconds = 0.2\n")
    command = [sys.executable, "-m", "nonet.cli.main", "service", "recognition", "--port", str(port)]
    environment = {**os.environ, "NONET_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--repository", str(repository), "--config", str(config)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        eventually(lambda: str(port) in log.read_text(), "the service listens", 60.0)
        yield port
    finally:
        process.kill()
        process.wait()


def test_models_that_were_profiled_come_through_a_topology(
    repository: Path, service: int, tmp_path: Path, start_server: Callable[..., RunningServer]
) -> None:
    topology = tmp_path / "topology.toml"
    topology.write_text(f'[[service]]\nname = "recognition"\naddress = "127.0.0.1:{service}"\n')
    server = start_server(tmp_path / "none", arguments=("--topology", str(topology)))
    eventually(
        lambda: server.http.get("/v2/health/ready").status_code == 200, "ready without profiles", 150.0
    )

    # While both run: the service loads its models anew, with what was measured of them.
    profile_all(repository, tmp_path / "cache")

    def latencies() -> dict[str, float]:
        card = server.http.get("/v1/models/colours").json()
        found: dict[str, float] = card.get("details", {}).get("measured_latencies", {})
        return found

    eventually(lambda: "1" in latencies(), "what was measured is told", 150.0)
    assert server.http.get("/v2/health/ready").status_code == 200
    assert server.http.get("/v1/models/colours").json()["devices"]
    echo = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
    assert server.infer("echo", echo).json()["outputs"][0]["data"] == [1, 2, 3, 4]

    # A gateway that starts when all of it is measured, which is the order of a second start.
    shutil.copy(topology, tmp_path / "again.toml")
    again = start_server(tmp_path / "none", arguments=("--topology", str(tmp_path / "again.toml")))
    eventually(lambda: again.http.get("/v2/health/ready").status_code == 200, "ready with profiles", 150.0)
    assert again.http.get("/v1/models/colours").json()["details"]["measured_latencies"] == latencies()
