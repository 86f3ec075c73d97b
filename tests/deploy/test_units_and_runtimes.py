"""The unit of systemd and the runtime of KServe start Nonet as it wants to be started, confined."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_lines import known_variables, taken_arguments
from tests.support.dashboard_queries import DEPLOY
from tests.support.deployment_programs import assert_accepts, needs, run_program

UNIT = DEPLOY / "systemd" / "nonet.service"
MOST_EXPOSURE = 20  # tenths; systemd calls up to 2.0 "OK" and a service without any measure 9.6
RUNTIME = DEPLOY / "kserve" / "serving-runtime.yaml"


@pytest.fixture
def runnable(tmp_path: Path) -> Path:
    """The unit with a program that is on every machine in place of the one it wants installed."""
    path = tmp_path / UNIT.name
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.M))
    return path


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(runnable: Path) -> None:
    ended = run_program("systemd-analyze", "verify", "--man=no", runnable)
    assert ended.returncode == 0, ended.stderr
    # A line that it does not understand is said and left out, and the status is 0.
    assert runnable.name not in ended.stderr, ended.stderr


@needs("systemd-analyze")
def test_the_unit_leaves_little_of_the_machine_in_reach(runnable: Path) -> None:
    assert_accepts(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={MOST_EXPOSURE}",
        runnable,
    )


def test_the_unit_starts_nonet_with_settings_that_there_are() -> None:
    text = UNIT.read_text()
    (line,) = re.findall(r"^ExecStart=\S+/nonet (\w+) (.*)$", text, re.M)
    taken_arguments(line[0], shlex.split(line[1]))
    named = set(re.findall(r"^Environment=(\w+)=", text, re.M))
    assert named <= known_variables()
    # What is written lies in the folders that systemd makes.
    folders = re.findall(r"^(?:State|Cache)Directory=(.*)$", text, re.M)
    made = {f"/var/lib/{each}" for each in folders[0].split()} | {f"/var/cache/{folders[1]}"}
    assert set(re.findall(r"^Environment=\w+=(/\S+)$", text, re.M)) <= made


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(RUNTIME.read_text())
    return loaded


def test_the_runtime_serves_what_kserve_puts_there(runtime: dict[str, Any]) -> None:
    spec = runtime["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    given = taken_arguments("serve", container["args"])
    assert given["repository"] == Path("/mnt/models")
    assert given["http_port"] == container["ports"][0]["containerPort"]
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(given["http_port"])
    assert {each["name"] for each in container["env"]} <= known_variables()
    assert spec["protocolVersions"] == ["v2", "grpc-v2"]


@needs("kubernetes-validate")
def test_kubernetes_accepts_the_pod_of_the_runtime(runtime: dict[str, Any], tmp_path: Path) -> None:
    """Which KServe makes of the containers and volumes of the runtime, as they are."""
    spec = {name: runtime["spec"][name] for name in ("containers", "volumes")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    assert_accepts("kubernetes-validate", "--strict", "--quiet", tmp_path / "pod.yaml")
