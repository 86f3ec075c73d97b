"""What a job needs at its end is looked at before its start: a repository that can only be read."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bare_sockets import Wire
from tests.support.building_gateway import BUILDINGS, submit, submitted, toy_settings, wait_for
from tests.support.running_server import RunningServer, assert_refused

Start = Callable[..., RunningServer]


@contextlib.contextmanager
def mounted_again(folder: Path, *options: str) -> Iterator[None]:
    """``folder`` mounted on itself with other options; skips the test where that cannot be done."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True)
    if os.geteuid() != 0 or bound.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", f"remount,bind,{','.join(options)}", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_fit_that_could_not_be_published_is_refused_before_its_scans_arrive(
    own_repository: Path, start_server: Start
) -> None:
    with mounted_again(own_repository, "ro"):
        server = start_server(own_repository, toy_settings())
        assert_refused(submit(server, "quick_a"), 507, "read-only")
        with Wire(server.http_port) as wire:
            head = f"POST {BUILDINGS} HTTP/1.1\r\nHost: test\r\nContent-Type: text/csv\r\n"
            wire.send(f"{head}Content-Length: 1000000\r\n\r\n".encode())
            reply = wire.reply()
        assert reply.status == 507
        assert b"REPOSITORY_READ_ONLY" in reply.body
        assert server.http.get("/v1/jobs").json()["data"] == []
    assert submit(server, "quick_a").status_code == 202  # it has become writable


def test_a_job_whose_repository_became_read_only_fails_at_its_start(
    own_repository: Path, start_server: Start
) -> None:
    settings = toy_settings(concurrency=1)
    server = start_server(own_repository, settings)
    wait_for(server, submitted(server, "quick_first"), "succeeded")
    blocking = submitted(server, "slow_blocking")
    waiting = submitted(server, "slow_waiting")
    with mounted_again(own_repository, "ro"):
        server.http.delete(f"/v1/jobs/{blocking}")
        failed = wait_for(server, waiting, "failed")
    assert failed["error"]["code"] == "REPOSITORY_READ_ONLY"
    assert failed["progress"] < 0.1


def test_the_folder_of_a_model_that_can_only_be_read(own_repository: Path, start_server: Start) -> None:
    server = start_server(own_repository, toy_settings())
    wait_for(server, submitted(server, "quick_a"), "succeeded")
    model: Any = own_repository / "floors_quick_a"
    with mounted_again(model, "ro"):
        assert_refused(submit(server, "quick_a", seed=2), 507, "read-only")
        assert submit(server, "quick_b").status_code == 202
