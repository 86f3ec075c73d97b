"""Servers that find the toy service of the tests on their path, as they find any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import handmade_networks
from tests.support.running_server import RunningServer, eventually, running, running_service

TOY = Path(__file__).parents[2] / "toy_service"


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two networks of the task that measures, and one of the task that asks it."""
    root = tmp_path_factory.mktemp("toy") / "models"
    root.mkdir()
    for name, truth in (("poor", 0.1), ("good", 0.9)):
        facts = {"task": "brightness", "family": "eyes", "quality": {"truth": truth}}
        handmade_networks.add_identity(root, name, "FP32", (-1,), facts=facts)
    handmade_networks.add_identity(root, "sharp", "FP32", (-1,), facts={"task": "contrast"})
    return root


@pytest.fixture(scope="package")
def environment() -> dict[str, str]:
    """With the toy service on the path."""
    return {"PYTHONPATH": os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH", "")])])}


@pytest.fixture(scope="package")
def toy(
    models: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that finds the toy service on its path."""
    settings = {"repository": {"poll_seconds": 0.0}, "jobs": {"nice": 0}}
    with running(models, tmp_path_factory.mktemp("server"), settings, environment=environment) as started:
        yield started


@pytest.fixture(scope="package")
def behind(
    models: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A gateway whose toy service is a process of its own."""
    folder = tmp_path_factory.mktemp("behind")
    with running_service("toy", models, folder / "service", environment) as port:
        topology = folder / "topology.toml"
        topology.write_text(f'[[service]]\nname = "toy"\naddress = "127.0.0.1:{port}"\n')
        options = {"environment": environment, "arguments": ("--topology", str(topology))}
        with running(models, folder / "gateway", **options) as started:
            eventually(lambda: started.http.get("/v2/health/ready").status_code == 200, "it is found")
            yield started


@pytest.fixture(params=["toy", "behind"])
def wherever(request: pytest.FixtureRequest) -> RunningServer:
    """A gateway with the toy service in its own process, and one with it behind itself."""
    started: RunningServer = request.getfixturevalue(request.param)
    return started
