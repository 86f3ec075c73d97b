"""The files of deploy/ and docker-compose.yml name what exists, and their readers accept them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nonet.gateway.process.services import installed_services
from nonet.gateway.settings.topology import load_topology
from tests.support.deployment_programs import assert_accepts, needs

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def copied(dockerfile: Path) -> list[str]:
    """What a Dockerfile copies from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.M)
    return [name for line in lines for name in line.split()]


def test_compose_runs_every_service_once_as_its_own_container(compose: dict[str, Any]) -> None:
    commands = {
        name: service["command"][0]
        for name, service in compose["services"].items()
        if service.get("image") == "nonet-service"
    }
    assert commands == {name: name for name in installed_services()}


def test_topology_names_the_services_of_the_compose_file_at_their_ports(compose: dict[str, Any]) -> None:
    found = load_topology(DEPLOY / "topology.toml")
    assert {service.name for service in found} == set(installed_services())
    for service in found:
        host, _, port = service.address.rpartition(":")
        command = compose["services"][host]["command"]
        assert command[command.index("--port") + 1] == port


def test_compose_names_files_that_are_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_what_is_published_is_on_loopback(compose: dict[str, Any]) -> None:
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert set(published) == {"gateway", "prometheus", "grafana", "triton"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_everything_restarts_and_says_whether_it_is_well(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped"
        assert "healthcheck" in service or service["image"] in {"nonet-gateway", "nonet-service"}, name


def test_containers_cannot_change_what_they_run(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Triton's own image writes where it likes, and is not started unless it is asked for.
        assert service.get("read_only") or service["profiles"] == ["gpu"], name


def test_redis_writes_before_it_answers(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--appendfsync") + 1] == "always"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_get_what_they_copy_and_all_source_roots(dockerfile: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    names = copied(dockerfile)
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignore
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["dev-mode-dirs"]) <= set(names)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_special_and_can_be_stopped(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.M)
    assert "STOPSIGNAL SIGTERM" in text
    assert "HEALTHCHECK" in text
    assert "--require-hashes" in text


def test_prometheus_scrapes_the_gateway_and_every_service(compose: dict[str, Any]) -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    assert targets == {f"{name}:8000" for name in ["gateway", *installed_services()]}


@needs("docker-compose")
def test_docker_compose_accepts_the_file_and_keeps_the_gpu_for_its_profile() -> None:
    file = ("--file", ROOT / "docker-compose.yml")
    plain = assert_accepts("docker-compose", *file, "config", "--services").split()
    everything = assert_accepts("docker-compose", *file, "--profile", "gpu", "config", "--services").split()
    assert set(everything) - set(plain) == {"triton"}


@needs("hadolint")
def test_hadolint_finds_nothing_in_the_images() -> None:
    assert_accepts("hadolint", *DOCKERFILES)
