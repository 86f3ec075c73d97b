"""Cases 70 and 77 for captures: what dies goes on from its finished tiles, to the bytes of an answer."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import handmade_captures, handmade_networks
from tests.support.building_gateway import (
    TOY,
    events,
    gone,
    job_of,
    kill,
    settle,
    state_folder,
    under_way,
    wait_for,
    worker_of,
    workers_of,
)
from tests.support.capture_gateway import (
    CAPTURE,
    LONG,
    QUICK,
    SLOW,
    developed,
    fill_repository,
    result_of,
    settings,
    submit,
    submitted,
)
from tests.support.running_server import RunningServer, assert_refused, eventually
from tests.support.small_filesystem import fill
from tests.support.webhook_receiver import Receiver

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def darkroom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fault_darkroom") / "models"
    root.mkdir()
    return fill_repository(root)


@pytest.fixture
def server(start_server: Start, darkroom: Path) -> RunningServer:
    return start_server(darkroom, settings())


def restarted(server: RunningServer, **jobs: Any) -> RunningServer:
    """A new gateway in the place of one that is gone."""
    return RunningServer(server.repository, Path(server._log_path).parent, settings(**jobs))


def finished(server: RunningServer, job: str) -> int:
    """Tiles that a job has written down as finished."""
    path = state_folder(server) / "work" / job / "finished.json"
    return int(json.loads(path.read_bytes())["finished"]) if path.is_file() else 0


def half_done(server: RunningServer, job: str) -> int:
    """Tiles that are finished, once a good part of them is."""
    eventually(lambda: finished(server, job) >= 40, f"job {job} has written down 40 tiles", 90.0)
    return finished(server, job)


def whole(server: RunningServer, job: str, attempts: int) -> None:
    """The job succeeds in so many attempts, with the picture that a request gets."""
    assert wait_for(server, job, "succeeded")["attempts"] == attempts
    reply = result_of(server, job)
    assert reply.status_code == 200, reply.text
    assert reply.content == developed(server, LONG).content


def test_case_77_progress_is_seen_while_a_capture_is_developed(server: RunningServer) -> None:
    job = submitted(server, LONG, model=SLOW)
    seen = [found for _, _, found in events(server, job)]
    progress = [found["progress"] for found in seen if found["state"] == "running"]
    assert progress == sorted(progress)
    assert len({share for share in progress if 0 < share < 0.96}) >= 3
    assert {found["phase"] for found in seen} & {"developing"}
    assert any(found["eta_seconds"] for found in seen)
    assert seen[-1]["state"] == "succeeded"
    whole(server, job, 1)
    eventually(lambda: not workers_of(server.popen.pid), "no process is left when no job is")
    assert not any((state_folder(server) / "work").iterdir())
    assert not any((state_folder(server) / "incoming").iterdir())


def went_on_after(server: RunningServer) -> list[int]:
    """Finished tiles that each attempt after the first began with, as the log says."""
    return [int(number) for number in re.findall(r"going on after (\d+) of 200 tiles", server.log)]


def test_case_77_a_killed_worker_goes_on_from_the_finished_tiles(server: RunningServer) -> None:
    job = submitted(server, LONG, model=SLOW)
    before = half_done(server, job)
    kill(worker_of(server))
    again = [found for _, _, found in events(server, job) if found["attempts"] == 2]
    shares = [found["progress"] for found in again if found["phase"] != "starting"]
    # What was written down counts from the first moment on: none of it is done again.
    assert min(shares) >= 0.9 * before / 200
    assert shares == sorted(shares)
    (after,) = went_on_after(server)
    assert after >= before
    whole(server, job, 2)


def test_case_77_a_killed_gateway_stops_its_worker_and_the_next_one_goes_on(server: RunningServer) -> None:
    job = submitted(server, LONG, model=SLOW)
    before = half_done(server, job)
    worker = worker_of(server)
    server.kill()
    eventually(lambda: gone(worker), "the worker has noticed that its gateway is gone")
    after = restarted(server)
    try:
        assert wait_for(after, job, "succeeded")["attempts"] == 2
        assert went_on_after(after)[0] >= before
        assert result_of(after, job).content == developed(after, LONG).content
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_a_stopped_gateway_loses_no_tile(server: RunningServer) -> None:
    job = submitted(server, LONG, model=SLOW)
    before = half_done(server, job)
    assert server.stop() == 0
    after = restarted(server)
    try:
        assert wait_for(after, job, "succeeded")["attempts"] == 2
        assert went_on_after(after)[0] >= before
        assert result_of(after, job).content == developed(after, LONG).content
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_cancelling_a_development_that_runs(server: RunningServer) -> None:
    job = submitted(server, LONG, model=SLOW)
    under_way(server, job, 0.1)
    assert server.http.delete(f"/v1/jobs/{job}").status_code == 202
    wait_for(server, job, "cancelled")
    assert_refused(result_of(server, job), 409, "cancelled")
    eventually(lambda: not any((state_folder(server) / "work").iterdir()), "nothing of it is left")
    assert not any((state_folder(server) / "results").glob("*"))


def test_case_77_simultaneous_submits_under_one_key_are_one_job(server: RunningServer) -> None:
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(submit(server, key="same"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {202}
    (job,) = {reply.json()["job"]["id"] for reply in replies}
    wait_for(server, job, "succeeded")
    made = sorted(path.name for path in (state_folder(server) / "results").iterdir())
    assert made == [job, f"{job}.json"]


def test_case_77_the_picture_is_its_tenants_own(start_server: Start, darkroom: Path) -> None:
    given = settings()
    given["auth"] = {"keys": {"ann": "key-of-ann", "bob": "key-of-bob"}}
    server = start_server(darkroom, given)
    server.http.headers.update({"Authorization": "Bearer key-of-ann"})
    job = submitted(server)
    wait_for(server, job, "succeeded")
    assert result_of(server, job).status_code == 200
    server.http.headers.update({"Authorization": "Bearer key-of-bob"})
    refused = result_of(server, job)
    assert_refused(refused, 404)
    assert refused.json()["error"]["code"] == "JOB_NOT_FOUND"
    del server.http.headers["Authorization"]
    assert_refused(result_of(server, job), 401)


def test_case_77_a_picture_is_kept_over_a_restart_and_for_its_time(
    start_server: Start, darkroom: Path
) -> None:
    server = start_server(darkroom, settings())
    job = submitted(server)
    wait_for(server, job, "succeeded")
    picture = result_of(server, job).content
    assert server.stop() == 0
    after = restarted(server)
    try:
        settle(1.0)
        assert result_of(after, job).content == picture
        assert after.stop() == 0
    finally:
        after.kill()
    late = restarted(server, keep_result_seconds=0.5)
    try:
        eventually(lambda: result_of(late, job).status_code == 404, "the picture is gone")
        assert result_of(late, job).json()["error"]["code"] == "RESULT_EXPIRED"
        assert job_of(late, job)["state"] == "succeeded"
        assert late.stop() == 0
    finally:
        late.kill()
    forgetful = restarted(server, keep_seconds=0.5)
    try:
        eventually(lambda: forgetful.http.get(f"/v1/jobs/{job}").status_code == 404, "the job is forgotten")
        assert result_of(forgetful, job).json()["error"]["code"] == "JOB_NOT_FOUND"
        assert not any((state_folder(forgetful) / "results").iterdir())
        assert forgetful.stop() == 0
    finally:
        forgetful.kill()


def test_case_77_pictures_take_no_more_room_than_they_may(start_server: Start, darkroom: Path) -> None:
    server = start_server(darkroom, settings(keep_result_bytes=20_000))
    jobs = [submitted(server, output="tiff16") for _ in range(3)]  # 15978 bytes each
    for job in jobs:
        wait_for(server, job, "succeeded")
    eventually(
        lambda: [result_of(server, job).status_code for job in jobs] == [404, 404, 200],
        "only the newest is left",
    )


def test_case_77_the_version_of_the_submit_develops_or_none(start_server: Start, tmp_path: Path) -> None:
    root = tmp_path / "own" / "models"
    root.mkdir(parents=True)
    fill_repository(root)
    server = start_server(root, settings())
    submitted(server, LONG, model=SLOW)
    pinned = submitted(server)
    second = handmade_captures.bilinear(trips=1)
    handmade_networks.write_version(root, QUICK, 2, {"model.onnx": second}, facts=handmade_captures.facts())
    assert server.http.post(f"/v2/repository/models/{QUICK}/load").status_code == 200
    ended = wait_for(server, pinned, "succeeded")
    assert ended["result"]["version"] == "1"
    newest = submitted(server)
    assert wait_for(server, newest, "succeeded")["result"]["version"] == "2"
    submitted(server, LONG, model=SLOW)
    lost = submitted(server)
    shutil.rmtree(root / QUICK / "2")
    handmade_networks.write_version(
        root, QUICK, 2, {"model.onnx": handmade_captures.bilinear(trips=2)}, facts=handmade_captures.facts()
    )
    error = wait_for(server, lost, "failed")["error"]
    assert (error["code"], error["type"]) == ("MODEL_CHANGED", "invalid_request_error")
    assert "submit the capture again" in error["message"]


def test_case_77_workers_that_know_no_captures_are_named_at_the_submit(
    start_server: Start, darkroom: Path
) -> None:
    """Only what was asked for as a job: who waits for the answer gets it."""
    server = start_server(darkroom, settings(worker=[sys.executable, str(TOY)]))
    assert_refused(submit(server), 501, "raw.develop")
    assert developed(server).status_code == 200
    assert server.http.get("/v1/jobs").json()["data"] == []


def test_case_77_the_end_of_a_development_is_told(start_server: Start, darkroom: Path) -> None:
    with Receiver() as receiver:
        given = settings(webhook_hosts=[receiver.host], webhook_secret="s" * 32)
        server = start_server(darkroom, given)
        job = submitted(server, webhook=receiver.url)
        eventually(lambda: len(receiver.letters) == 1, "the receiver was told")
        told = receiver.letters[0].job
        assert (told["id"], told["state"]) == (job, "succeeded")
        assert told["result"]["file"] == f"/v1/jobs/{job}/result"


def test_case_70_a_disk_that_is_full_for_a_while_costs_nothing(
    start_server: Start, darkroom: Path, small_disk: Path
) -> None:
    server = start_server(darkroom, settings(path=str(small_disk / "jobs")))
    job = submitted(server, LONG, model=SLOW)
    under_way(server, job, 0.2)
    ballast = fill(small_disk)
    reply = submit(server)
    assert reply.status_code in (503, 507), reply.text
    assert "disk" in reply.text
    # A request needs no disk.
    assert developed(server, CAPTURE).status_code == 200
    settle(2.0)
    ballast.unlink()
    ended = wait_for(server, job, "succeeded", "failed")
    assert ended["state"] == "succeeded" or "disk" in ended["error"]["message"], ended
    wait_for(server, submitted(server), "succeeded")


def test_case_70_a_picture_larger_than_the_disk_fails_in_plain_words(
    start_server: Start, darkroom: Path, small_disk: Path
) -> None:
    server = start_server(darkroom, settings(path=str(small_disk / "jobs")))
    job = submitted(server, handmade_captures.npy(handmade_captures.capture(600, 800)), output="png16")
    eventually(lambda: "room" in job_of(server, job)["phase"], "it waits for room")
    error = wait_for(server, job, "failed")["error"]
    assert (error["code"], error["message"]) == ("INSUFFICIENT_STORAGE", "the disk became full")
    wait_for(server, submitted(server), "succeeded")
    assert not any((small_disk / "jobs" / "work").iterdir())
