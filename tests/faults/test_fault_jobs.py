"""Case 77: jobs survive whatever dies; equal submits are one job; limits end a job with the reason."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.building_gateway import (
    BUILDINGS,
    events,
    gone,
    identify,
    job_of,
    kill,
    state_folder,
    submit,
    submitted,
    toy_settings,
    under_way,
    wait_for,
    worker_of,
    workers_of,
)
from tests.support.running_server import RunningServer, assert_no_leak, assert_refused, eventually, running

pytestmark = pytest.mark.timeout(300)

Start = Callable[..., RunningServer]


@pytest.fixture
def server(start_server: Start, own_repository: Path) -> RunningServer:
    """A gateway of the test's own, which it may kill."""
    return start_server(own_repository, toy_settings())


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "models").mkdir()
    with running(folder / "models", folder / "server", toy_settings()) as started:
        yield started


@pytest.fixture
def lasting(lasting_server: RunningServer) -> Iterator[RunningServer]:
    """A gateway that several tests use one after the other; their jobs and buildings end with them."""
    yield lasting_server
    http = lasting_server.http
    live = "/v1/jobs?limit=100&state=queued,running"
    for job in http.get(live).json()["data"]:
        http.delete(f"/v1/jobs/{job['id']}")
    eventually(lambda: not http.get(live).json()["data"], "every job has ended")
    eventually(lambda: not workers_of(lasting_server.popen.pid), "no process is left when no job is")
    for building in http.get(BUILDINGS).json()["data"]:
        assert http.delete(f"{BUILDINGS}/{building['building']}").status_code < 300


def restarted(server: RunningServer, **jobs: object) -> RunningServer:
    """A new gateway in the place of one that is gone: the same folder, repository and settings."""
    folder = Path(server._log_path).parent
    return RunningServer(server.repository, folder, toy_settings(**jobs))


def test_case_77_a_job_becomes_a_building_that_answers(lasting: RunningServer) -> None:
    job = submitted(lasting, "quick_1")
    ended = wait_for(lasting, job, "succeeded")
    assert ended["progress"] == 1.0
    assert ended["result"] == {"building": "quick_1", "model": "floors_quick_1", "version": "1"}
    assert ended["error"] is None
    # Seen to have succeeded is as good as loaded.
    assert identify(lasting, "quick_1", {"00:00:00:00:00:01": -40}).status_code == 200
    eventually(lambda: not workers_of(lasting.popen.pid), "no process is left when no job is")
    assert not any((state_folder(lasting) / "work").iterdir())
    assert not any((state_folder(lasting) / "incoming").iterdir())


def test_case_77_a_killed_worker_goes_on_from_its_checkpoint(lasting: RunningServer) -> None:
    job = submitted(lasting, "slow_1")
    under_way(lasting, job, 0.3)
    kill(worker_of(lasting))
    ended = wait_for(lasting, job, "succeeded")
    assert ended["attempts"] == 2
    assert lasting.http.get("/v1/floors/buildings/slow_1").json()["facts"]["begun_at"] >= 0.3 * 40


def test_case_77_a_job_whose_process_always_dies_fails_with_the_reason(lasting: RunningServer) -> None:
    ended = wait_for(lasting, submitted(lasting, "crash_1"), "failed")
    assert ended["attempts"] == 3
    assert ended["error"]["code"] == "WORKER_CRASHED"
    assert "3 times" in ended["error"]["message"]
    assert "SIGKILL" in ended["error"]["message"]
    assert_no_leak(str(ended))


def test_case_77_a_killed_gateway_stops_its_worker_and_the_next_one_goes_on(server: RunningServer) -> None:
    job = submitted(server, "slow_1")
    under_way(server, job, 0.2)
    worker = worker_of(server)
    server.kill()
    eventually(lambda: gone(worker), "the worker has noticed that its gateway is gone")
    after = restarted(server)
    try:
        ended = wait_for(after, job, "succeeded")
        assert ended["attempts"] == 2
        assert after.http.get("/v1/floors/buildings/slow_1").json()["facts"]["begun_at"] >= 0.2 * 40
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_a_job_goes_on_after_gateway_and_worker_were_killed_together(server: RunningServer) -> None:
    job = submitted(server, "slow_1")
    under_way(server, job, 0.2)
    worker = worker_of(server)
    server.kill()
    kill(worker)
    after = restarted(server)
    try:
        assert wait_for(after, job, "succeeded")["attempts"] == 2
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_a_stopped_gateway_lets_jobs_write_their_checkpoint(server: RunningServer) -> None:
    """SIGTERM: the running job goes back to the queue, and goes on later."""
    job = submitted(server, "slow_1")
    waiting = submitted(server, "quick_1")
    under_way(server, job, 0.2)
    worker = worker_of(server)
    assert server.stop() == 0
    assert gone(worker)
    after = restarted(server)
    try:
        assert wait_for(after, job, "succeeded")["attempts"] == 2
        wait_for(after, waiting, "succeeded")
        assert after.http.get("/v1/floors/buildings/slow_1").json()["facts"]["begun_at"] >= 0.2 * 40
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_equal_submits_under_one_key_are_one_job(lasting: RunningServer) -> None:
    first = submit(lasting, "quick_1", "key-1")
    again = submit(lasting, "quick_1", "key-1")
    assert first.status_code == again.status_code == 202
    assert first.json()["job"]["id"] == again.json()["job"]["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Location"] == f"/v1/jobs/{first.json()['job']['id']}"
    assert_refused(submit(lasting, "quick_2", "key-1"), 409, "Idempotency-Key")
    other = submit(lasting, "quick_1")
    assert other.json()["job"]["id"] != first.json()["job"]["id"]
    wait_for(lasting, other.json()["job"]["id"], "succeeded")
    assert submit(lasting, "quick_1", "key-1").json()["job"]["state"] == "succeeded"
    assert_refused(submit(lasting, "quick_1", "a key with blanks"), 400, "Idempotency-Key")


def test_case_77_simultaneous_submits_under_one_key_are_one_job(server: RunningServer) -> None:
    replies: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: replies.append(submit(server, "quick_1", "same"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["job"]["id"] for reply in replies}) == 1
    assert len(server.http.get("/v1/jobs").json()["data"]) == 1


def test_case_77_a_key_is_remembered_over_a_restart(server: RunningServer) -> None:
    job = submit(server, "quick_1", "key-1").json()["job"]["id"]
    wait_for(server, job, "succeeded")
    server.kill()
    after = restarted(server)
    try:
        assert submit(after, "quick_1", "key-1").json()["job"]["id"] == job
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_cancelling(lasting: RunningServer) -> None:
    """A waiting job at once; a running one when its worker has stopped; an ended one not at all."""
    running, waiting = submitted(lasting, "slow_1"), submitted(lasting, "slow_2")
    under_way(lasting, running)
    reply = lasting.http.delete(f"/v1/jobs/{waiting}")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    reply = lasting.http.delete(f"/v1/jobs/{running}")
    assert reply.status_code == 202
    assert reply.json()["cancelling"]
    wait_for(lasting, running, "cancelled")
    assert lasting.http.delete(f"/v1/jobs/{running}").status_code == 200
    done = submitted(lasting, "quick_1")
    wait_for(lasting, done, "succeeded")
    assert_refused(lasting.http.delete(f"/v1/jobs/{done}"), 409, "succeeded")
    assert_refused(lasting.http.delete("/v1/jobs/job_0"), 404, "job")
    assert lasting.http.get("/v1/floors/buildings/slow_1").status_code == 404
    eventually(lambda: not any((state_folder(lasting) / "work").iterdir()), "nothing of them is left")


def test_case_77_a_job_that_hangs_is_killed_when_it_is_cancelled(lasting: RunningServer) -> None:
    job = submitted(lasting, "hang_1")
    under_way(lasting, job)
    worker = worker_of(lasting)
    children = worker.children()
    assert children
    lasting.http.delete(f"/v1/jobs/{job}")
    wait_for(lasting, job, "cancelled")
    eventually(lambda: all(map(gone, [worker, *children])), "all its processes are gone")


def test_case_77_a_job_over_its_time_fails_with_the_reason(start_server: Start, own_repository: Path) -> None:
    server = start_server(own_repository, toy_settings(max_seconds=3.0))
    ended = wait_for(server, submitted(server, "hang_1"), "failed")
    assert ended["error"]["code"] == "JOB_TIME_LIMIT"
    assert "3 seconds" in ended["error"]["message"]


def test_case_77_a_job_over_its_memory_fails_with_the_reason(
    start_server: Start, own_repository: Path
) -> None:
    server = start_server(own_repository, toy_settings(max_memory_bytes=250_000_000))
    ended = wait_for(server, submitted(server, "greedy_1"), "failed")
    assert ended["error"]["code"] == "JOB_OUT_OF_MEMORY"
    assert "238" in ended["error"]["message"]
    assert wait_for(server, submitted(server, "hungry_1"), "failed")["error"]["code"] == "JOB_OUT_OF_MEMORY"
    assert wait_for(server, submitted(server, "quick_1"), "succeeded")


def test_case_77_what_a_fit_refuses_is_told_in_plain_words(lasting: RunningServer) -> None:
    ended = wait_for(lasting, submitted(lasting, "refused_1"), "failed")
    assert ended["error"] == {
        "message": "the labelled scan holds no usable reading",
        "type": "invalid_request_error",
        "param": "labelled",
        "code": "INVALID_ARGUMENT",
    }


def test_case_77_a_defect_of_a_fit_tells_nothing_to_the_caller(own_repository: Path, tmp_path: Path) -> None:
    server = RunningServer(own_repository, tmp_path / "server", toy_settings())
    try:
        job = submitted(server, "broken_1")
        error = wait_for(server, job, "failed")["error"]
        assert error["code"] == "INTERNAL"
        assert job in error["message"]
        assert "secret" not in str(error)
        assert "secret" in server.log
        assert server.stop() == 0
    finally:
        server.kill()


def test_case_77_waiting_jobs_are_bounded(start_server: Start, own_repository: Path) -> None:
    settings = toy_settings(max_waiting=3, max_waiting_per_tenant=2)
    settings["auth"] = {"keys": {"ann": "key-of-ann", "bob": "key-of-bob"}}
    server = start_server(own_repository, settings)
    ann = {"Authorization": "Bearer key-of-ann"}
    bob = {"Authorization": "Bearer key-of-bob"}
    server.http.headers.update(ann)
    first = submitted(server, "hang_0")
    under_way(server, first, 0.05)
    for number in (1, 2):
        submitted(server, f"slow_{number}")
    assert_refused(submit(server, "slow_3"), 429, "wait already")
    server.http.headers.update(bob)
    submitted(server, "slow_4")
    assert_refused(submit(server, "slow_5"), 503, "wait already")
    # Neither sees the other's.
    assert [job["subject"] for job in server.http.get("/v1/jobs").json()["data"]] == ["slow_4"]
    assert_refused(server.http.get(f"/v1/jobs/{first}"), 404)
    assert_refused(server.http.delete(f"/v1/jobs/{first}"), 404)
    assert_refused(server.http.get(f"/v1/jobs/{first}/events"), 404)
    server.http.headers.update(ann)
    states = [job["state"] for job in server.http.get("/v1/jobs").json()["data"]]
    assert states == ["queued", "queued", "running"]
    for job in server.http.get("/v1/jobs?state=queued,running").json()["data"]:
        server.http.delete(f"/v1/jobs/{job['id']}")


def test_case_77_watching_tells_every_state_and_ends_with_the_job(lasting: RunningServer) -> None:
    job = submitted(lasting, "slow_1")
    seen = list(events(lasting, job))
    states = [found["state"] for name, _, found in seen if name == "state"]
    assert states[-2:] == ["running", "succeeded"]
    progress = [found["progress"] for _, _, found in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 5
    assert any(found["eta_seconds"] for _, _, found in seen)
    numbers = [number for _, number, _ in seen]
    assert numbers == sorted(set(numbers))
    # Who has seen the end is told not to come back; who has not sees it at once.
    headers = {"Last-Event-ID": str(numbers[-1])}
    assert lasting.http.get(f"/v1/jobs/{job}/events", headers=headers).status_code == 204
    ((_, _, last),) = events(lasting, job, numbers[-2])
    assert last["state"] == "succeeded"
    assert_refused(lasting.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "x"}), 400)


def test_case_77_watching_goes_on_over_a_restart(server: RunningServer) -> None:
    job = submitted(server, "slow_1")
    under_way(server, job, 0.1)
    last = 0
    with pytest.raises(httpx.TransportError):  # noqa: PT012 - the stream breaks somewhere in the loop
        for _, number, _ in events(server, job):
            last = number
            server.popen.send_signal(signal.SIGKILL)
    server.kill()
    after = restarted(server)
    try:
        seen = list(events(after, job, last))
        assert seen[-1][2]["state"] == "succeeded"
        assert all(number > last for _, number, _ in seen)
        assert after.stop() == 0
    finally:
        after.kill()


def test_case_77_a_leaving_server_ends_the_streams(server: RunningServer) -> None:
    job = submitted(server, "slow_1")
    under_way(server, job)
    seen: list[str] = []

    def watch() -> None:
        for name, _, _ in events(server, job):
            seen.append(name)

    watching = threading.Thread(target=watch)
    watching.start()
    eventually(lambda: bool(seen), "the stream has begun")
    server.popen.send_signal(signal.SIGTERM)
    watching.join(30)
    assert not watching.is_alive()
    assert server.popen.wait(30) == 0


def test_case_77_without_what_a_fit_needs_the_submit_says_what_to_install(
    start_server: Start, own_repository: Path
) -> None:
    missing = "fitting a building needs scipy; install it with: pip install scikit-learn scipy"
    server = start_server(own_repository, toy_settings(), environment={"TOY_MISSING": missing})
    assert_refused(submit(server, "quick_1"), 501, "pip install scikit-learn scipy")
    assert server.http.get("/v1/jobs").json()["data"] == []


def test_case_77_lists_are_paged(start_server: Start, own_repository: Path) -> None:
    server = start_server(own_repository, toy_settings())
    jobs = [submitted(server, f"quick_{number}") for number in range(5)]
    first = server.http.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in first["data"]] == [jobs[4], jobs[3]]
    assert first["has_more"]
    rest = server.http.get(f"/v1/jobs?limit=50&after={jobs[3]}").json()
    assert [job["id"] for job in rest["data"]] == [jobs[2], jobs[1], jobs[0]]
    assert not rest["has_more"]
    for query in ("limit=0", "limit=101", "state=asleep"):
        assert_refused(server.http.get(f"/v1/jobs?{query}"), 400)
    for query in ("limit=x", "colour=red"):
        assert_refused(server.http.get(f"/v1/jobs?{query}"), 422)
    assert_refused(server.http.get("/v1/jobs?after=job_1"), 404)
    for job in jobs:
        wait_for(server, job, "succeeded")
    assert server.metric("nonet_jobs", state="succeeded") >= 4
    assert server.metric("nonet_jobs", state="failed") == 0


def test_case_77_a_stopped_server_starts_no_further_job(server: RunningServer) -> None:
    job = submitted(server, "slow_1")
    waiting = submitted(server, "slow_2")
    under_way(server, job)
    assert job_of(server, waiting)["state"] == "queued"
    assert server.stop() == 0
    assert server.log.count("attempt 1") == 1
