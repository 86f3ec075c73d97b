"""Case 62: an execution that hangs in the gateway's own process is given up, and nobody else waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.running_server import RunningServer, assert_refused, eventually, running
from tests.support.toy_gateway import add_toy_models, toy_environment, waiting_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One lane, of which two may be lost."""
    settings = {
        "scheduler": {"lanes": 1, "execution_limit": 1.0, "max_lost_lanes": 2, "default_timeout": 60.0},
        "repository": {"poll_seconds": 0.0},
    }
    folder = tmp_path_factory.mktemp("hung")
    models = add_toy_models(folder / "models")
    with running(models, folder / "server", settings, environment=toy_environment()) as started:
        yield started


@pytest.fixture
def hangs(server: RunningServer, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Makes up files that executions wait for; all that hang are let go in the end."""
    files: list[Path] = []

    def one() -> Path:
        files.append(tmp_path / f"{len(files)}.end")
        return files[-1]

    yield one
    for file in files:
        file.touch()
    eventually(lambda: lost(server) == 0, "all threads are back")


def measure(server: RunningServer, image: bytes, model: str = "good") -> httpx.Response:
    return server.http.post(
        "/v1/toy/measure", content=image, params={"model": model}, headers={"content-type": "image/png"}
    )


def lost(server: RunningServer) -> float:
    return server.metric("nonet_lost_lanes", device="cpu")


def test_a_hung_execution_is_given_up_and_those_behind_it_are_answered(
    server: RunningServer, hangs: Callable[[], Path]
) -> None:
    end = hangs()
    with ThreadPoolExecutor(8) as callers:
        hung = callers.submit(measure, server, waiting_for(end))
        eventually(lambda: server.metric("nonet_device_utilisation_ratio", device="cpu") == 1, "it runs")
        behind: list[Future[httpx.Response]] = [
            callers.submit(measure, server, bytes([value]), model)
            for value in (10, 20, 30)
            for model in ("good", "poor")
        ]
        answers = [each.result() for each in behind]
        assert_refused(hung.result(), 503, "did not finish")
        assert hung.result().json()["error"]["code"] == "EXECUTION_HUNG"
    assert [each.status_code for each in answers] == [200] * 6, [each.text for each in answers]
    assert sorted(each.json()["brightness"] for each in answers) == [10, 10, 20, 20, 30, 30]
    assert lost(server) == 1
    assert server.metric("nonet_hung_executions_total", model="measure.good") == 1
    assert server.http.get("/v2/health/ready").status_code == 200

    end.touch()
    eventually(lambda: lost(server) == 0, "the thread is back, its late answer dropped")
    assert measure(server, waiting_for(end)).status_code == 200


def test_time_in_which_the_process_was_stopped_does_not_count(
    server: RunningServer, hangs: Callable[[], Path]
) -> None:
    end = hangs()
    before = server.metric("nonet_hung_executions_total")
    with ThreadPoolExecutor(1) as callers:
        asked = callers.submit(measure, server, waiting_for(end))
        eventually(lambda: server.metric("nonet_device_utilisation_ratio", device="cpu") == 1, "it runs")
        server.process.suspend()
        try:
            time.sleep(1.5)  # longer than an execution may take
            end.touch()
        finally:
            server.process.resume()
        assert asked.result().status_code == 200
    assert server.metric("nonet_hung_executions_total") == before


def test_a_model_that_hangs_is_unloaded_only_when_its_execution_has_ended(
    server: RunningServer, hangs: Callable[[], Path]
) -> None:
    end = hangs()
    assert measure(server, waiting_for(end)).status_code == 503
    with ThreadPoolExecutor(1) as callers:
        unloading = callers.submit(server.http.post, "/v2/repository/models/good/unload")
        eventually(lambda: measure(server, b"\1").status_code != 200, "it takes nothing more")
        assert server.metric("nonet_lost_lanes") == 1
        assert not unloading.done()
        end.touch()
        assert unloading.result().status_code == 200
    assert measure(server, b"\1", "poor").status_code == 200
    assert server.http.post("/v2/repository/models/good/load").status_code == 200


def test_beyond_its_lanes_the_process_is_not_ready_and_says_why(
    server: RunningServer, hangs: Callable[[], Path]
) -> None:
    ends = [hangs(), hangs(), hangs()]
    for end in ends:
        assert measure(server, waiting_for(end)).status_code == 503
    assert lost(server) == 3
    assert_refused(server.http.get("/v2/health/ready"), 503, "3 executions hang", "restarted")
    assert_refused(measure(server, b"\1"), 503)

    ends[0].touch()
    eventually(lambda: server.http.get("/v2/health/ready").status_code == 200, "one thread is back")
    assert measure(server, b"\1").status_code == 200


def test_a_request_that_hangs_twice_is_run_no_more_and_its_peers_are_answered(
    server: RunningServer, hangs: Callable[[], Path]
) -> None:
    blocker, end = hangs(), hangs()
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(measure, server, waiting_for(blocker))
        eventually(lambda: server.metric("nonet_device_utilisation_ratio", device="cpu") == 1, "it runs")
        together = [callers.submit(measure, server, image) for image in (waiting_for(end), b"\xc8", b"\xc9")]
        eventually(lambda: server.pending("measure.good") == 3, "the others wait", 10.0)
        blocker.touch()
        assert first.result().status_code == 200
        guilty, *innocent = [each.result() for each in together]
    assert [each.status_code for each in innocent] == [200, 200]
    assert guilty.status_code == 503
    assert_refused(measure(server, waiting_for(end)), 422, "not run again")
