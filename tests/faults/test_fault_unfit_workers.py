"""Case 77 with workers that lack what a job needs: an engine, a module, the repository of the gateways."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nonet.runtime.backends import installed_backends
from nonet.runtime.repository_identity import IDENTITY_FILE, name_repository, repository_identity
from tests.support import capture_gateway
from tests.support.building_gateway import events, identify, job_of, submit, wait_for, workers_of
from tests.support.running_server import RunningServer, assert_no_leak, assert_refused, eventually
from tests.support.shared_jobs import Site

pytestmark = pytest.mark.timeout(300)

needs_openvino = pytest.mark.skipif(
    all(engine.name != "openvino" for engine in installed_backends()),
    reason="the extra openvino is not installed",
)
HEARD = {"00:00:00:00:00:01": -40}


def served(site: Site) -> set[str]:
    """The repositories that gateways say they serve from."""
    (heard,) = site.redis.client.keys("*:heard") or [""]
    words = " ".join(site.redis.client.zrange(heard, 0, -1)).split() if heard else []
    return {word.partition(":")[2] for word in words if word.startswith("serves:")}


def another(folder: Path) -> Path:
    made = folder / "another"
    made.mkdir()
    return made


def queue_first(server: RunningServer) -> str:
    """Id of a fit that the gateway takes once somebody offers to fit."""
    eventually(lambda: submit(server, "quick_1", "once").status_code == 202, "work is offered")
    job: str = submit(server, "quick_1", "once").json()["job"]["id"]
    return job


# -- what a worker lacks ----------------------------------------------------------------------------


@needs_openvino
def test_case_77_a_capture_waits_for_a_worker_with_the_engine_of_its_gateway(raw_site: Site) -> None:
    plain = raw_site.gateway(0)
    fast = raw_site.gateway(0, repository={"engine": "openvino"})
    lacks = raw_site.work(lacks="openvino")
    eventually(
        lambda: capture_gateway.submit(plain, key="first").status_code == 202, "development is offered"
    )
    job = capture_gateway.submitted(fast)
    note = "waiting: no worker offers engine openvino"
    eventually(lambda: job_of(fast, job)["phase"] == note, "the job says what it waits for")
    # Younger jobs that need no more than the worker has are worked on all the same.
    wait_for(plain, capture_gateway.submitted(plain), "succeeded")
    waiting = job_of(plain, job)
    assert (waiting["state"], waiting["attempts"], waiting["phase"]) == ("queued", 0, note)
    labels = {"kind": "raw.develop", "missing": "engine:openvino"}
    for server in (plain, fast):
        eventually(lambda of=server: of.metric("nonet_jobs_unserved", **labels) == 1, "it is counted")
        assert "jobs wait (1 raw.develop): no worker offers engine openvino" in server.log
    stream = events(fast, job)
    assert next(stream)[2]["phase"] == note
    has = raw_site.work()
    ended = wait_for(fast, job, "succeeded")
    assert ended["attempts"] == 1
    assert [found for _, _, found in stream][-1]["state"] == "succeeded"
    assert capture_gateway.result_of(plain, job).content == capture_gateway.developed(fast).content
    assert job in has.log
    assert job not in lacks.log
    eventually(lambda: plain.metric("nonet_jobs_unserved") == 0, "nobody waits any more")


def test_case_77_a_worker_without_the_extra_takes_captures_and_no_fit(raw_site: Site) -> None:
    """PyTorch is missing on the one machine that works, and the gateways run nothing themselves."""
    server = raw_site.gateway(0)
    raw_site.work(lacks="sklearn")
    eventually(
        lambda: capture_gateway.submit(server, key="first").status_code == 202, "development is offered"
    )
    wait_for(server, capture_gateway.submitted(server), "succeeded")
    assert_refused(submit(server, "home"), 503, "nobody who can do this work")


@pytest.mark.parametrize("store", ["redis", "sqlite"])
def test_case_77_a_fit_says_that_its_worker_has_left(site: Site, store: str) -> None:
    if store == "sqlite":
        site.environment.clear()
    server = site.gateway(0)
    worker = site.work()
    eventually(lambda: submit(server, "slow_1", "once").status_code == 202, "work is offered")
    job = submit(server, "slow_1", "once").json()["job"]["id"]
    wait_for(server, job, "running")
    assert worker.stop() == 0
    # What it offered counts for a minute; the test does not wait for that.
    if store == "redis":
        (heard,) = site.redis.client.keys("*:heard")
        for words in site.redis.client.zrange(heard, 0, -1):
            if "floors.fit" in words:
                site.redis.client.zrem(heard, words)
        eventually(lambda: job_of(server, job)["phase"].startswith("waiting: "), "it says so", 60.0)
        assert "floors.fit" in job_of(server, job)["phase"]
    site.work()
    assert wait_for(server, job, "succeeded")["attempts"] == 2


# -- the repository of the gateways -----------------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True])
def test_case_77_a_worker_with_another_repository_refuses_to_start(
    site: Site, tmp_path: Path, copied: bool
) -> None:
    """Nor does one with a copy of the gateways' folder start, their name in it."""
    site.gateway(0)
    eventually(lambda: served(site), "the gateway has said what it serves from")
    (name,) = served(site)
    assert name == repository_identity(site.repository)
    stranger = tmp_path / "stranger"
    if copied:
        shutil.copytree(site.repository, stranger)
        assert (stranger / IDENTITY_FILE).read_text() == (site.repository / IDENTITY_FILE).read_text()
        if repository_identity(stranger) == name:
            pytest.skip("files have no lasting numbers here")
    else:
        stranger.mkdir()
        name_repository(stranger)
    worker = site.work(stranger, works=False)
    assert worker.popen.wait(60) == 2
    last = worker.log.splitlines()[-1]
    for said in ("nonet: ", str(stranger), name, repository_identity(stranger), "repository.path"):
        assert said in last
    assert "works on jobs" not in worker.log
    site.work()  # the gateways' own folder is fine


@pytest.mark.parametrize("store", ["redis", "sqlite"])
def test_case_77_a_fit_is_published_where_its_gateway_serves_or_waits_for_that(
    site: Site, tmp_path: Path, store: str
) -> None:
    """The wrong worker was there first, so nothing could tell it."""
    if store == "sqlite":
        site.environment.clear()
    elsewhere = another(tmp_path)
    wrong = site.work(elsewhere)
    server = site.gateway(0)
    job = queue_first(server)
    name = repository_identity(site.repository)
    assert name
    note = f"waiting: no worker offers repository {name}"
    eventually(lambda: job_of(server, job)["phase"] == note, "the job says what it waits for")
    assert_no_leak(str(job_of(server, job)))
    said = f"jobs wait (1 floors.fit): {note.removeprefix('waiting: ')}"
    eventually(lambda: said in wrong.log, "so does the log of the worker")
    assert not workers_of(wrong.popen.pid)
    right = site.work()
    assert wait_for(server, job, "succeeded")["attempts"] == 1
    assert job in right.log
    assert job not in wrong.log
    assert not list(elsewhere.iterdir())
    assert identify(server, "quick_1", HEARD).status_code == 200
    assert "not in this repository" not in server.log


def test_case_77_captures_go_on_where_only_fits_must_not(raw_site: Site, tmp_path: Path) -> None:
    """Images with the models in them: nothing is published, and equal models develop equally."""
    server = raw_site.gateway(0)
    eventually(lambda: served(raw_site), "the gateway has said what it serves from")
    baked = tmp_path / "baked"
    shutil.copytree(raw_site.repository, baked, ignore=shutil.ignore_patterns(IDENTITY_FILE))
    raw_site.work(baked, lacks="sklearn torch")
    eventually(
        lambda: capture_gateway.submit(server, key="first").status_code == 202, "development is offered"
    )
    wait_for(server, capture_gateway.submitted(server), "succeeded")
