"""Old versions of buildings go, under load and under the eyes of other gateways, without a failed request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.building_gateway import BUILDINGS, HOME, Load, identify, submitted, toy_settings, wait_for
from tests.support.running_server import RunningServer, eventually

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


def keeping(versions: int, **repository: Any) -> dict[str, dict[str, Any]]:
    settings = toy_settings()
    settings["repository"] |= repository
    settings["repository"]["keep_versions"] = versions
    return settings


def refit(server: RunningServer, seed: int) -> None:
    wait_for(server, submitted(server, "quick_home", seed=seed), "succeeded")


def versions(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "floors_quick_home").iterdir() if path.is_dir())


def test_case_65_refits_leave_so_many_versions_as_are_to_be_kept(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, keeping(2))
    refit(server, 0)
    with Load(server, "quick_home") as load:
        for seed in range(1, 5):
            refit(server, seed)
        eventually(lambda: all(seen[-1:] == ["5"] for seen in load.by_client), "the newest answers")
        eventually(lambda: versions(own_repository) == ["4", "5"], "the oldest are gone")
    assert load.failures == []
    assert server.http.get(f"{BUILDINGS}/quick_home").json()["versions"] == ["5"]
    assert server.http.get(f"{BUILDINGS}/quick_home/picture").status_code == 200
    assert "removed old versions of floors_quick_home" in server.log


def test_all_versions_can_be_kept(start_server: Start, own_repository: Path) -> None:
    server = start_server(own_repository, keeping(0))
    for seed in range(4):
        refit(server, seed)
    assert versions(own_repository) == ["1", "2", "3", "4"]


def test_case_66_what_another_gateway_has_loaded_goes_on_there(
    start_server: Start, own_repository: Path
) -> None:
    """One that does not look keeps what it has; one that looks goes over to the newest; neither fails."""
    server = start_server(own_repository, keeping(1))
    refit(server, 0)
    blind = start_server(own_repository, keeping(1))
    looking = start_server(own_repository, keeping(1, poll_seconds=0.1))
    with Load(blind, "quick_home") as still, Load(looking, "quick_home") as along:
        for seed in range(1, 4):
            refit(server, seed)
        eventually(lambda: versions(own_repository) == ["4"], "one version is left")
        eventually(lambda: all(seen[-1:] == ["4"] for seen in along.by_client), "the newest answers")
        count = len(still.versions)
        eventually(lambda: len(still.versions) > count + 20, "the one that does not look still answers")
    assert (still.failures, along.failures) == ([], [])
    assert set(still.versions) == {"1"}
    assert blind.http.post("/v2/repository/models/floors_quick_home/load", json={}).status_code == 200
    assert identify(blind, "quick_home", HOME).headers["X-Model-Version"] == "4"
    assert versions(own_repository) == ["4"]


def test_case_66_without_its_files_a_building_serves_until_a_version_can_take_its_place(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, keeping(1, poll_seconds=0.1))
    refit(server, 0)
    folder = own_repository / "floors_quick_home"
    (folder / "1").rename(own_repository / ".aside")
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(b"no network")

    def refused() -> bool:
        index = server.http.post("/v2/repository/index").json()
        return any(
            (line["name"], line["version"]) == ("floors_quick_home", "2") and "ONNX" in line["reason"]
            for line in index
        )

    eventually(refused, "the successor is refused")
    assert identify(server, "quick_home", HOME).headers["X-Model-Version"] == "1"
    refit(server, 1)
    assert identify(server, "quick_home", HOME).headers["X-Model-Version"] == "3"
    eventually(lambda: versions(own_repository) == ["3"], "what could not be loaded is gone too")
