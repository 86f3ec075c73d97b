"""Cases 60 and 77 with several processes: they share a real Redis, the folder of the jobs, the repository."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.building_gateway import (
    events,
    gone,
    identify,
    job_of,
    kill,
    settle,
    submit,
    submitted,
    under_way,
    wait_for,
    worker_of,
    workers_of,
)
from tests.support.redis_server import PASSWORD
from tests.support.running_server import (
    RunningServer,
    assert_no_leak,
    assert_refused,
    eventually,
)
from tests.support.shared_jobs import LEASE, Site
from tests.support.webhook_receiver import Receiver

pytestmark = pytest.mark.timeout(300)


def test_case_77_every_gateway_shows_watches_and_cancels_every_job(site: Site) -> None:
    runs, other = site.gateway(1), site.gateway(0)
    job = submitted(other, "slow_1")
    seen = [found["state"] for _, _, found in events(other, job)]
    assert seen[-1] == "succeeded"
    assert "running" in seen
    for server in (other, runs):
        assert wait_for(server, job, "succeeded")["attempts"] == 1
        assert identify(server, "slow_1", {"00:00:00:00:00:01": -40}).status_code == 200
    running, waiting = submitted(runs, "slow_2"), submitted(runs, "slow_3")
    under_way(other, running)
    assert other.http.delete(f"/v1/jobs/{waiting}").status_code == 200
    assert other.http.delete(f"/v1/jobs/{running}").status_code == 202
    wait_for(runs, running, "cancelled")
    assert job_of(runs, waiting)["state"] == "cancelled"
    assert [found["id"] for found in other.http.get("/v1/jobs").json()["data"]] == [waiting, running, job]
    eventually(lambda: not any((site.folder / "work").iterdir()), "nothing of them is left")


def test_case_77_a_refit_is_loaded_by_every_gateway_without_a_look_at_the_folder(site: Site) -> None:
    """Nobody asks the other gateway about the job, and the repository is not polled."""
    runs, other = site.gateway(1), site.gateway(0)
    path = "/v1/floors/buildings/quick_1"
    for version in ("1", "2"):
        wait_for(runs, submitted(runs, "quick_1", seed=int(version)), "succeeded")
        assert runs.http.get(path).json()["version"] == version
        eventually(
            lambda wanted=version: other.http.get(path).json().get("version") == wanted,
            "the other gateway has loaded it",
        )


def test_case_77_a_job_goes_on_elsewhere_after_its_gateway_and_worker_were_killed(site: Site) -> None:
    servers = [site.gateway(1), site.gateway(1)]
    job = submitted(servers[0], "slow_1")
    under_way(servers[0], job, 0.2)
    (first,) = (server for server in servers if workers_of(server.popen.pid))
    (second,) = (server for server in servers if server is not first)
    worker = worker_of(first)
    first.kill()
    kill(worker)
    ended = wait_for(second, job, "succeeded")
    assert ended["attempts"] == 2
    assert second.http.get("/v1/floors/buildings/slow_1").json()["facts"]["begun_at"] >= 0.2 * 40


def test_case_77_a_machine_that_is_gone_loses_its_job_with_its_lease(site: Site) -> None:
    """Nobody else can look for the processes of another machine or container, which this one is like."""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("this system does not let a test make a process namespace: run it as root")
    first = site.gateway(1, prefix=prefix)
    job = submitted(first, "slow_1")
    under_way(first, job, 0.2)
    first.kill()  # and with it its whole namespace
    second = site.gateway(1)
    assert wait_for(second, job, "succeeded")["attempts"] == 2


def test_case_60_redis_killed_in_the_middle_loses_nothing(site: Site) -> None:
    first, second = site.gateway(1), site.gateway(0)
    job, waiting = submitted(first, "slow_1"), submitted(second, "quick_2")
    under_way(first, job, 0.1)
    site.redis.kill()
    for server in (first, second):
        assert_refused(server.http.get(f"/v1/jobs/{job}"), 503, "job store")
        assert_refused(submit(server, "quick_1"), 503)
        assert server.http.get("/v2/health/live").status_code == 200
    settle(LEASE + 2.0)  # nobody could renew the lease: the worker keeps its job all the same
    site.redis.start()
    for server in (first, second):
        eventually(lambda of=server: of.http.get("/v1/jobs").status_code == 200, "the jobs are back")
    assert wait_for(second, job, "succeeded")["attempts"] == 1
    assert wait_for(first, waiting, "succeeded")["attempts"] == 1


def test_case_60_a_hung_redis_holds_up_nothing_but_jobs(site: Site) -> None:
    server = site.gateway(1)
    wait_for(server, submitted(server, "quick_1"), "succeeded")
    job = submitted(server, "slow_1")
    under_way(server, job, 0.1)
    seen: list[str] = []

    def watch() -> None:
        for _, _, found in events(server, job):
            seen.append(found["state"])

    watching = threading.Thread(target=watch)
    watching.start()
    eventually(lambda: bool(seen), "the stream has begun")
    site.redis.hang()
    refused: list[httpx.Response] = []
    asking = [
        threading.Thread(target=lambda: refused.append(server.http.get("/v1/jobs", timeout=30)))
        for _ in range(12)
    ]
    for each in asking:
        each.start()
    for _ in range(20):
        assert server.http.get("/v2/health/live").status_code == 200
        assert identify(server, "quick_1", {"00:00:00:00:00:01": -40}).status_code == 200
        assert server.http.get("/metrics").status_code == 200
    for each in asking:
        each.join()
    for reply in refused:
        assert_refused(reply, 503, "job store")
    assert len(refused) == 12
    assert_refused(submit(server, "quick_2"), 503)
    settle(LEASE + 1.0)
    site.redis.go_on()
    eventually(lambda: server.http.get("/v1/jobs").status_code == 200, "the jobs are back")
    assert wait_for(server, job, "succeeded")["attempts"] == 1
    watching.join()
    assert (seen[0], seen[-1]) == ("running", "succeeded")  # the stream was not cut off
    # What was refused while it hung was not done afterwards.
    assert {found["subject"] for found in server.http.get("/v1/jobs").json()["data"]} == {"quick_1", "slow_1"}


def test_case_77_equal_submits_to_several_gateways_at_once_are_one_job(site: Site) -> None:
    servers = [site.gateway(1), site.gateway(0)]
    replies: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda of=server: replies.append(submit(of, "quick_1", "same")))
        for server in servers
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {202}
    (job,) = {reply.json()["job"]["id"] for reply in replies}
    for server in servers:
        wait_for(server, job, "succeeded")
        assert len(server.http.get("/v1/jobs").json()["data"]) == 1
        assert_refused(submit(server, "quick_2", "same"), 409, "Idempotency-Key")


def test_case_77_quotas_count_the_jobs_of_all_gateways(site: Site) -> None:
    keys = {"keys": {"ann": "key-of-ann", "bob": "key-of-bob"}}
    limits = {"max_waiting": 3, "max_waiting_per_tenant": 2, "auth": keys}
    first, second = site.gateway(1, **limits), site.gateway(0, **limits)
    for server in (first, second):
        server.http.headers["Authorization"] = "Bearer key-of-ann"
    under_way(first, submitted(second, "hang_0"), 0.05)
    submitted(first, "slow_1")
    submitted(second, "slow_2")
    for server in (first, second):
        assert_refused(submit(server, "slow_3"), 429, "wait already")
        server.http.headers["Authorization"] = "Bearer key-of-bob"
    submitted(first, "slow_4")
    assert_refused(submit(second, "slow_5"), 503, "wait already")
    first.http.headers["Authorization"] = "Bearer key-of-ann"
    for found in first.http.get("/v1/jobs").json()["data"]:
        first.http.delete(f"/v1/jobs/{found['id']}")


def test_case_77_each_end_is_told_by_one_of_the_gateways(site: Site) -> None:
    with Receiver() as receiver:
        hooks = {"webhook_hosts": [receiver.host], "webhook_secret": "a secret of webhooks"}
        first, second = site.gateway(1, **hooks), site.gateway(0, **hooks)
        jobs = [submitted(second, f"quick_{number}", webhook=receiver.url) for number in range(3)]
        for job in jobs:
            eventually(
                lambda of=job: job_of(first, of)["webhook"]["state"] == "delivered", "the end of it was told"
            )
        assert sorted(letter.job["id"] for letter in receiver.letters) == sorted(jobs)
        assert all(letter.signed_with("a secret of webhooks") for letter in receiver.letters)


def test_case_77_work_is_done_by_processes_that_only_work(site: Site) -> None:
    server = site.gateway(0)
    message = assert_refused(submit(server, "slow_1"), 503, "nobody")
    assert "retry" in message
    first = site.work()
    eventually(lambda: submit(server, "slow_1", "once").status_code == 202, "work is offered")
    job = submit(server, "slow_1", "once").json()["job"]["id"]
    under_way(server, job, 0.2)
    (worker,) = workers_of(first.popen.pid)
    assert not workers_of(server.popen.pid)
    assert first.stop() == 0
    assert gone(worker)
    assert job_of(server, job)["state"] == "queued"
    site.work()
    ended = wait_for(server, job, "succeeded")
    assert ended["attempts"] == 2  # the first wrote its checkpoint and gave the job back
    assert identify(server, "slow_1", {"00:00:00:00:00:01": -40}).status_code == 200
    assert server.http.get("/v1/floors/buildings/slow_1").json()["facts"]["begun_at"] >= 0.2 * 40


@pytest.mark.parametrize("store", ["redis", "sqlite"])
def test_case_77_a_worker_takes_what_it_can_do_only(site: Site, store: str) -> None:
    if store == "sqlite":
        site.environment.clear()
    missing = "fitting a building needs scipy; install it with: pip install scikit-learn scipy"
    site.environment["TOY_MISSING"] = missing
    unable = site.gateway(1)
    del site.environment["TOY_MISSING"]
    assert_refused(submit(unable, "quick_1"), 501, "pip install scikit-learn scipy")
    work = site.work()
    eventually(lambda: submit(unable, "quick_1", "once").status_code == 202, "work is offered")
    wait_for(unable, submit(unable, "quick_1", "once").json()["job"]["id"], "succeeded")
    assert "attempt 1" in work.log
    assert "attempt 1" not in unable.log


def test_case_77_the_password_is_on_no_command_line_and_not_for_what_a_job_starts(site: Site) -> None:
    server = site.gateway(1)
    job = submitted(server, "hang_1")
    under_way(server, job, 0.05)
    worker = worker_of(server)
    (child,) = worker.children()
    for process in (server.process, worker, child):
        assert PASSWORD not in " ".join(process.cmdline())
    assert PASSWORD not in str(child.environ())
    server.http.delete(f"/v1/jobs/{job}")
    wait_for(server, job, "cancelled")
    assert PASSWORD not in server.log
    assert_no_leak(str(job_of(server, job)))


def test_case_77_a_folder_that_is_not_the_shared_one_takes_no_job(site: Site, tmp_path: Path) -> None:
    server = site.gateway(1)
    wait_for(server, submitted(server, "quick_1"), "succeeded")
    stranger = site.gateway(1, path=str(tmp_path / "another"))
    assert_refused(submit(stranger, "quick_2"), 503, "folder")
    eventually(lambda: "not the folder" in stranger.log, "the log says what to change")
    jobs = [submitted(server, f"quick_{number}") for number in (3, 4)]
    for job in jobs:
        wait_for(stranger, job, "succeeded")
    assert "attempt 1" not in stranger.log
    assert stranger.log.count("not the folder") == 1
    # A volume that is gone while the gateway runs is the same; so is its return.
    site.folder.rename(tmp_path / "away")
    assert_refused(submit(server, "quick_5"), 503, "folder")
    shutil.rmtree(site.folder)
    (tmp_path / "away").rename(site.folder)
    wait_for(server, submitted(server, "quick_5"), "succeeded")


def test_case_77_a_job_whose_files_are_gone_says_so(site: Site) -> None:
    server = site.gateway(1)
    first, second = submitted(server, "slow_1"), submitted(server, "slow_2")
    under_way(server, first, 0.05)
    (site.folder / "work" / second).rename(site.folder / "elsewhere")
    server.http.delete(f"/v1/jobs/{first}")
    error = wait_for(server, second, "failed")["error"]
    assert error["code"] == "JOB_FILES_MISSING"
    assert "jobs.path" in error["message"]
    assert_no_leak(str(error))


def test_case_77_one_machine_needs_no_redis_for_a_gateway_that_runs_no_job(site: Site) -> None:
    site.environment.clear()
    server = site.gateway(0)
    assert_refused(submit(server, "quick_1"), 503, "nobody")
    site.work()
    eventually(lambda: submit(server, "quick_1", "once").status_code == 202, "work is offered")
    wait_for(server, submit(server, "quick_1", "once").json()["job"]["id"], "succeeded")


@pytest.mark.parametrize("url", ["redis://:hunter2@host:port/0", "http://hunter2@host/"])
def test_case_74_a_store_that_cannot_be_is_refused_without_its_password(
    own_repository: Path, tmp_path: Path, url: str
) -> None:
    with pytest.raises(RuntimeError, match=r"jobs\.store") as ended:
        RunningServer(own_repository, tmp_path, environment={"NONET_JOBS__STORE": url})
    assert "hunter2" not in str(ended.value)


def test_case_74_a_redis_without_its_client_is_refused_with_what_to_install(
    own_repository: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "redis.py").write_text("raise ModuleNotFoundError('no redis', name='redis')\n")
    path = f"{hidden}:{psutil.Process().environ().get('PYTHONPATH', '')}"
    environment = {"NONET_JOBS__STORE": "redis://host/0", "PYTHONPATH": path}
    with pytest.raises(RuntimeError, match=r"pip install 'redis"):
        RunningServer(own_repository, tmp_path / "server", environment=environment)
    with RunningServerThatStops(own_repository, tmp_path / "plain", {"PYTHONPATH": path}) as server:
        assert server.http.get("/v1/jobs").status_code == 200  # nothing of it is needed without a store


class RunningServerThatStops(RunningServer):
    """A server for a ``with`` block."""

    def __init__(self, repository: Path, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(repository, folder, environment=environment)

    def __enter__(self) -> RunningServerThatStops:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.stop() == 0
