"""Servers that find the toy service of the tests on their path, as they find any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, eventually, running, running_service
from tests.support.toy_gateway import add_toy_models, toy_environment


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two networks of the task that measures, and one of the task that asks it."""
    return add_toy_models(tmp_path_factory.mktemp("toy") / "models")


@pytest.fixture(scope="package")
def environment() -> dict[str, str]:
    """With the toy service on the path."""
    return toy_environment()


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
