"""Cases 65-67: buildings come and go under load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from nonet.runtime.repository_identity import IDENTITY_FILE
from tests.support.building_gateway import (
    BUILDINGS,
    HOME,
    Load,
    identify,
    kill,
    submit,
    submitted,
    toy_settings,
    under_way,
    upload,
    wait_for,
    worker_of,
)
from tests.support.running_server import RunningServer, assert_refused, eventually, running

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one fitted building, ``quick_home``, for tests that leave nothing behind."""
    root = tmp_path_factory.mktemp("floors") / "models"
    root.mkdir()
    with running(root, tmp_path_factory.mktemp("floors_server"), toy_settings()) as started:
        wait_for(started, submitted(started, "quick_home"), "succeeded")
        yield started


def test_case_65_a_refit_replaces_the_version_without_a_failed_request(
    start_server: Start, own_repository: Path
) -> None:
    """The old version answers until the new one is loaded, however often the new fit dies on its way."""
    server = start_server(own_repository, toy_settings())
    wait_for(server, submitted(server, "slow_home"), "succeeded")
    with Load(server, "slow_home") as load:
        job = submitted(server, "slow_home", seed=7)
        under_way(server, job, 0.3)
        kill(worker_of(server))
        wait_for(server, job, "succeeded")
        eventually(
            lambda: all(seen[-1:] == ["2"] for seen in load.by_client), "the new version answers everybody"
        )
    assert load.failures == []
    for seen in load.by_client:
        assert seen == sorted(seen)
        assert set(seen) == {"1", "2"}
    assert server.http.get(f"{BUILDINGS}/slow_home").json()["versions"] == ["2"]


def test_case_66_a_damaged_building_is_not_served(start_server: Start, own_repository: Path) -> None:
    server = start_server(own_repository, toy_settings())
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    wait_for(server, submitted(server, "quick_home", seed=1), "succeeded")
    assert server.stop() == 0
    names = own_repository / "floors_quick_home" / "2" / "transmitters.txt"
    names.write_text(names.read_text().replace("01", "09"))
    again = start_server(own_repository, toy_settings())
    body = again.http.get(f"{BUILDINGS}/quick_home").json()
    assert (body["version"], body["versions"]) == ("1", ["1"])
    assert identify(again, "quick_home", HOME).headers["X-Model-Version"] == "1"
    index = again.http.post("/v2/repository/index").json()
    (reason,) = [
        line["reason"] for line in index if (line["name"], line["version"]) == ("floors_quick_home", "2")
    ]
    assert "transmitters.txt" in reason


def test_case_67_deleting_waits_for_nobody_and_breaks_nothing(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, toy_settings())
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    with Load(server, "quick_home") as load:
        eventually(lambda: len(load.versions) > 20, "requests are answered")
        assert server.http.delete(f"{BUILDINGS}/quick_home").status_code == 204
        eventually(lambda: load.failures, "it is gone")
    assert {failure[:3] for failure in load.failures} == {"404"}
    assert server.http.get(BUILDINGS).json()["data"] == []
    assert_refused(server.http.delete(f"{BUILDINGS}/quick_home"), 404)
    assert not (own_repository / "floors_quick_home").exists()
    # The same name can be used again.
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    assert identify(server, "quick_home", HOME).status_code == 200


def test_case_67_refits_deletions_and_questions_at_once_break_nothing(
    start_server: Start, own_repository: Path
) -> None:
    """Whatever comes first, each answer is one of those that it may be, and the server is well afterwards."""
    server = start_server(own_repository, toy_settings())
    path, model = f"{BUILDINGS}/quick_home", "/v2/repository/models/floors_quick_home"
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    asked: list[tuple[Callable[[httpx.Client, int], httpx.Response], set[int]]] = [
        (lambda http, _: http.post(f"{path}/identify", json={"scans": [{"rssi": HOME}]}), {200, 404}),
        (lambda http, _: http.get(path), {200, 404}),
        (lambda http, _: http.get(f"{path}/picture"), {200, 404}),
        (lambda http, _: http.get(BUILDINGS), {200}),
        (lambda http, _: http.delete(path), {204, 404, 409}),
        (lambda http, _: http.delete(path), {204, 404, 409}),
        (lambda http, turn: http.post(BUILDINGS, json=upload("quick_home", seed=turn)), {202, 429}),
        (lambda http, turn: http.post(f"{model}/{('load', 'unload')[turn % 2]}", json={}), {200, 404}),
    ]
    odd: list[str] = []

    def ask(what: Callable[[httpx.Client, int], httpx.Response], allowed: set[int]) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for turn in range(8):
                reply = what(http, turn)
                if reply.status_code not in allowed:
                    odd.append(f"{reply.request.method} {reply.request.url.path}: {reply.text}")

    threads = [threading.Thread(target=ask, args=each) for each in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert odd == []
    for job in server.http.get("/v1/jobs?state=queued,running&limit=100").json()["data"]:
        wait_for(server, job["id"], "succeeded")
    assert server.http.delete(path).status_code in (204, 404)
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    assert identify(server, "quick_home", HOME).status_code == 200
    assert {each.name for each in own_repository.iterdir()} == {"floors_quick_home", IDENTITY_FILE}


def test_case_67_a_building_that_is_being_fitted_cannot_be_deleted(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, toy_settings())
    wait_for(server, submitted(server, "slow_home"), "succeeded")
    job = submitted(server, "slow_home")
    assert_refused(server.http.delete(f"{BUILDINGS}/slow_home"), 409, "cancel")
    server.http.delete(f"/v1/jobs/{job}")
    wait_for(server, job, "cancelled")
    assert server.http.delete(f"{BUILDINGS}/slow_home").status_code == 204


def test_case_67_where_models_are_fixed_buildings_are_too(start_server: Start, own_repository: Path) -> None:
    settings = toy_settings()
    settings["repository"]["control"] = False
    server = start_server(own_repository, settings)
    wait_for(server, submitted(server, "quick_home"), "succeeded")
    assert_refused(server.http.delete(f"{BUILDINGS}/quick_home"), 403)
    assert submit(server, "quick_home").status_code == 202


def test_a_building_has_a_picture(house: RunningServer) -> None:
    reply = house.http.get(f"{BUILDINGS}/quick_home/picture")
    assert reply.headers["Content-Type"] == "image/png"
    assert reply.content.startswith(b"\x89PNG")
