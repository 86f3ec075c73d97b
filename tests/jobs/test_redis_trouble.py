"""The store in Redis while the server is away, hangs, is full, or is not as it should be."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from nonet.jobs import JobPolicy, JobState, JobStore, OutcomeUnknown, StoreAddress
from nonet.runtime.errors import InsufficientStorage, Unavailable
from tests.support.certificates import made_certificate
from tests.support.redis_jobs import POLICY, beat, new, queue, works
from tests.support.redis_server import PASSWORD, RedisHouse, redis_house
from tests.support.running_server import eventually, free_port

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
T = TypeVar("T")


@pytest.fixture
def house() -> Iterator[RedisHouse]:
    """A Redis that the test may do anything to."""
    with redis_house() as made:
        yield made


@pytest.fixture
def impatient(house: RedisHouse, tmp_path: Path) -> Iterator[JobStore]:
    """A store on :func:`house` that waits half a second, already connected."""
    made = StoreAddress(house.url, timeout=0.5).open(tmp_path)
    made.counts()
    yield made
    made.close()


def test_a_call_that_nobody_answered_has_no_effect_later(house: RedisHouse, impatient: JobStore) -> None:
    """The commands lie in the server's buffers while it hangs; it reads them when it goes on."""
    house.hang()
    with pytest.raises(OutcomeUnknown) as unknown:
        impatient.submit(new(), POLICY)
    assert unknown.value.retry_after
    for _ in range(20):  # once it is known to hang, calls do not wait for it one after another
        with pytest.raises(Unavailable):
            impatient.submit(new(), POLICY)
    time.sleep(0.6)
    house.go_on()
    eventually(lambda: works(impatient), "the store works again")
    assert impatient.page(None).jobs == ()


def test_a_restarted_server_goes_on_with_all_jobs(house: RedisHouse, impatient: JobStore) -> None:
    jobs = [queue(impatient) for _ in range(3)]
    assert impatient.claim("me", 60, 9) is not None
    for _ in range(2):
        house.kill()
        with pytest.raises(Unavailable):
            impatient.get(jobs[0].id)
        house.start()
        eventually(lambda: works(impatient), "the store works again")
    assert [job.id for job in impatient.page(None).jobs] == [job.id for job in reversed(jobs)]
    beat(impatient, jobs[0].id)
    assert impatient.finish(jobs[0].id, "me", JobState.SUCCEEDED, result={})


def test_a_connection_that_the_server_has_closed_is_made_again(
    house: RedisHouse, impatient: JobStore
) -> None:
    job = queue(impatient)
    house.kill()
    house.start()
    assert impatient.get(job.id) == job


def test_a_full_server_takes_no_job_and_lets_those_that_run_go_on(
    house: RedisHouse, impatient: JobStore
) -> None:
    store = impatient
    job, waits = queue(store), queue(store)
    assert store.claim("me", 60, 9) is not None
    house.client.config_set("maxmemory", "1")
    with pytest.raises(InsufficientStorage):
        queue(store)
    beat(store, job.id)
    assert store.reap(3, ["me"]) == []
    assert store.cancel(waits.id).state is JobState.CANCELLED
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={"much": "x" * 1000})
    store.announce(["toy"], 60)
    assert len(store.forget(-1, 1)) == 2
    house.client.config_set("maxmemory", "0")
    queue(store)


def test_a_server_that_may_not_write_is_unavailable(house: RedisHouse, impatient: JobStore) -> None:
    queue(impatient)
    house.client.replicaof("127.0.0.1", str(free_port()))
    with pytest.raises(Unavailable):
        queue(impatient)
    house.client.replicaof("NO", "ONE")
    queue(impatient)


def test_a_server_that_is_busy_with_something_else_is_unavailable(
    house: RedisHouse, impatient: JobStore
) -> None:
    house.client.config_set("busy-reply-threshold", "50")

    def keep_busy() -> None:
        other = redis.Redis.from_url(house.url)
        with pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)
        other.close()

    busy = threading.Thread(target=keep_busy)
    busy.start()
    eventually(lambda: not works(impatient), "the server is busy")
    house.client.script_kill()
    busy.join()
    eventually(lambda: works(impatient), "the store works again")


def test_a_server_that_still_reads_its_files_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slowly = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with redis_house(*slowly) as house:
        store = StoreAddress(house.url).open(tmp_path)
        job = queue(store)
        with house.client.pipeline(transaction=False) as many:
            for number in range(4000):
                many.set(f"something else {number}", "x")
            many.execute()
        # The delay is for files of another form than that of single writes.
        house.client.bgrewriteaof()
        eventually(lambda: not house.client.info("persistence")["aof_rewrite_in_progress"], "it is written")
        house.kill()
        house.start(wait=False)
        eventually(lambda: works(store), "the store works again")
        assert "loading the dataset" in caplog.text
        assert store.get(job.id) == job
        store.close()


def test_a_cluster_is_followed_to_the_server_that_has_the_jobs(tmp_path: Path) -> None:
    options = [("--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(2)]
    with redis_house(*options[0]) as first, redis_house(*options[1]) as second:
        first.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
        second.client.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
        first.client.execute_command("CLUSTER MEET", "127.0.0.1", second.port, int(options[1][3]))
        for each in (first, second):
            eventually(
                lambda house=each: house.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
                "the cluster is whole",
            )
        for prefix in ("one", "two", "three", "four"):  # in slots of both
            store = StoreAddress(first.url, prefix).open(tmp_path)
            job = queue(store)
            assert store.claim("me", 60, 9) is not None
            assert store.finish(job.id, "me", JobState.SUCCEEDED, result={})
            assert store.get(job.id).state is JobState.SUCCEEDED
            store.close()
        sizes = [house.client.dbsize() for house in (first, second)]
        assert all(sizes), sizes


def test_what_the_server_does_not_promise_is_said(house: RedisHouse, impatient: JobStore) -> None:
    assert impatient.durability_warnings() == []
    house.client.config_set("appendfsync", "everysec")
    (late,) = impatient.durability_warnings()
    assert "appendfsync always" in late
    house.client.config_set("appendonly", "no")
    house.client.config_set("maxmemory", "100mb")
    house.client.config_set("maxmemory-policy", "allkeys-lru")
    lost, evicted = impatient.durability_warnings()
    assert "appendonly yes" in lost
    assert "noeviction" in evicted
    house.client.acl_setuser("default", commands=["-info", "-config"])
    assert impatient.durability_warnings() == []


def test_a_user_that_may_do_nothing_else_is_enough(house: RedisHouse, tmp_path: Path) -> None:
    (rule,) = re.findall(r"`(~\{nonet\}[^`]+)`", PAGE.read_text())
    house.client.execute_command("ACL SETUSER", "jobs", "on", ">word", "-@all", *rule.split())
    store = StoreAddress(house.url.replace(f":{PASSWORD}", "jobs:word")).open(tmp_path)
    job = queue(store)
    assert store.claim("me", 60, 9) is not None
    beat(store, job.id)
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={})
    assert store.durability_warnings() == []
    assert store.page(None).jobs == (store.get(job.id),)
    store.close()
    stranger = StoreAddress(house.url.replace(f":{PASSWORD}", "jobs:word"), "other").open(tmp_path)
    with pytest.raises(Unavailable):
        queue(stranger)
    stranger.close()


def test_over_tls_only_a_server_that_is_vouched_for_gets_the_password(tmp_path: Path) -> None:
    key, certificate = made_certificate(tmp_path)
    port = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with redis_house("--tls-port", str(port), "--tls-auth-clients", "no", *files) as house:
        url = house.url.replace("redis://", "rediss://").replace(str(house.port), str(port))
        stranger = StoreAddress(url).open(tmp_path)
        with pytest.raises(Unavailable):
            stranger.counts()
        stranger.close()
        store = StoreAddress(f"{url}?ssl_ca_certs={certificate}").open(tmp_path)
        assert queue(store).state is JobState.QUEUED
        store.close()


# -- secrets ----------------------------------------------------------------------------------------


def test_the_password_is_in_no_message_and_no_log(
    house: RedisHouse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    for url in (
        house.url.replace(PASSWORD, "hunter2"),
        house.url.replace(str(house.port), str(free_port())).replace(PASSWORD, "hunter2"),
    ):
        address = StoreAddress(url, timeout=5.0)
        store = address.open(tmp_path)
        with pytest.raises(Unavailable) as error:
            store.counts()
        texts += [str(error.value), repr(address), repr(store), address.shown]
        assert "127.0.0.1" in address.shown
        store.close()
    for url in ("redis://:hunter2/x@host:port/0", "http://:hunter2@host", "hunter2"):
        with pytest.raises(ValueError) as refused:
            StoreAddress(url).open(tmp_path)
        texts.append(str(refused.value))
    assert "hunter2" not in caplog.text + "".join(texts)


def test_a_cause_is_logged_once_and_its_end_too(
    house: RedisHouse, impatient: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    house.client.replicaof("127.0.0.1", str(free_port()))
    for _ in range(5):
        with pytest.raises(Unavailable):
            queue(impatient)
    house.client.replicaof("NO", "ONE")
    queue(impatient)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_nothing_is_lost_or_done_twice_however_often_the_server_dies(
    house: RedisHouse, tmp_path: Path
) -> None:
    """Callers submit until they are answered, workers work and die; meanwhile the server dies or hangs."""
    accepted: list[str] = []
    finished: Counter[str] = Counter()
    done = threading.Event()

    def open_store() -> JobStore:
        return StoreAddress(house.url, timeout=1.0).open(tmp_path)

    def submit_all(tenant: str) -> None:
        store = open_store()
        for number in range(30):
            accepted.append(
                insist(
                    lambda key=f"{number}": store.submit(
                        new(tenant, key), JobPolicy(max_waiting=1000, max_waiting_per_tenant=1000)
                    )
                )[0].id
            )
        store.close()

    def work(name: str) -> None:
        store = open_store()
        for number in itertools.count():
            owner, dies = f"{name}{number}", number % 7 == 3
            claim = insist(lambda owner=owner: store.claim(owner, 2.0, 1000))
            if done.is_set():
                break
            if claim is None:
                time.sleep(0.02)
            elif not dies and insist(
                lambda job=claim.job.id, owner=owner: store.finish(job, owner, JobState.SUCCEEDED, result={})
            ):
                finished[claim.job.id] += 1
            insist(lambda: store.reap(1000))
        store.close()

    callers = [threading.Thread(target=submit_all, args=(name,)) for name in ("ann", "bob")]
    workers = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in (*callers, *workers):
        thread.start()
    for number in range(6):
        time.sleep(0.3)
        if number % 3 == 2:
            house.hang()
            time.sleep(1.2)
            house.go_on()
        else:
            house.kill()
            house.start()
    for thread in callers:
        thread.join()
    store = open_store()
    eventually(lambda: insist(store.unfinished) == [], "all is done")
    done.set()
    for thread in workers:
        thread.join()
    assert len(set(accepted)) == len(accepted) == 60
    assert {job.id for job in insist(lambda: store.ended(0))} == set(accepted)
    assert store.counts()[JobState.SUCCEEDED] == 60
    assert set(finished.values()) == {1}
    store.close()


def insist(call: Callable[[], T]) -> T:
    """Call until there is an answer, as everybody does who has a job to do."""
    while True:
        try:
            return call()
        except Unavailable:
            time.sleep(0.02)
