"""Case 70: a full or read-only disk is 507 or 503 in plain words, and over when there is room again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.building_gateway import (
    identify,
    job_of,
    submit,
    submitted,
    toy_settings,
    under_way,
    wait_for,
)
from tests.support.running_server import RunningServer, assert_no_leak, assert_refused
from tests.support.small_filesystem import fill

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


def test_case_70_a_full_disk_refuses_submits_and_nothing_else(
    start_server: Start, own_repository: Path, small_disk: Path
) -> None:
    server = start_server(own_repository, toy_settings(path=str(small_disk / "jobs")))
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    ballast = fill(small_disk)
    for _ in range(3):
        reply = submit(server, "quick_home")
        assert reply.status_code in (503, 507), reply.text
        assert_no_leak(reply.text)
        assert "disk" in reply.text
    home = {"00:00:00:00:00:01": -40}
    assert identify(server, "quick_home", home).status_code == 200
    assert server.http.get("/v1/jobs").status_code in (200, 503, 507)
    assert server.http.get("/v2/health/ready").status_code == 200
    ballast.unlink()
    wait_for(server, submitted(server, "quick_home"), "succeeded")


def test_case_70_a_job_that_runs_while_the_disk_fills_is_not_lost(
    start_server: Start, own_repository: Path, small_disk: Path
) -> None:
    server = start_server(own_repository, toy_settings(path=str(small_disk / "jobs"), max_attempts=20))
    job = submitted(server, "slow_home")
    under_way(server, job, 0.1)
    ballast = fill(small_disk)
    assert server.http.get("/v2/health/live").status_code == 200
    ballast.unlink()
    ended = wait_for(server, job, "succeeded", "failed")
    # It went on, or it says why not.
    assert ended["state"] == "succeeded" or "disk" in ended["error"]["message"], ended
    wait_for(server, submitted(server, "quick_home"), "succeeded")


def test_case_70_a_read_only_state_folder_refuses_submits_until_it_is_repaired(
    start_server: Start, own_repository: Path, tmp_path: Path
) -> None:
    place = tmp_path / "not_a_folder"
    place.write_text("in the way")
    server = start_server(own_repository, toy_settings(path=str(place / "jobs")))
    assert_refused(server.http.get("/v1/jobs"), 507, "jobs")
    reply = submit(server, "quick_home")
    assert reply.status_code in (503, 507), reply.text
    assert_no_leak(reply.text)
    place.unlink()
    job = submitted(server, "quick_home")
    wait_for(server, job, "succeeded")
    assert job_of(server, job)["progress"] == 1.0
