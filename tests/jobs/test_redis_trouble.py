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
from tests.support.redis_server import PASSWORD, RedisServer, running_redis
from tests.support.running_server import eventually, free_port

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
T = TypeVar("T")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may do anything to."""
    with running_redis() as made:
        yield made


@pytest.fixture
def impatient(own_redis: RedisServer, tmp_path: Path) -> Iterator[JobStore]:
    """A store on :func:`own_redis` that waits half a second, already connected."""
    made = StoreAddress(own_redis.url, timeout=0.5).open(tmp_path)
    made.counts()
    yield made
    made.close()


def test_a_call_that_nobody_answered_has_no_effect_later(own_redis: RedisServer, impatient: JobStore) -> None:
    """The commands lie in the server's buffers while it hangs; it reads them when it goes on."""
    own_redis.hang()
    with pytest.raises(OutcomeUnknown) as unknown:
        impatient.submit(new(), POLICY)
    assert unknown.value.retry_after
    for _ in range(20):  # once it is known to hang, calls do not wait for it one after another
        with pytest.raises(Unavailable):
            impatient.submit(new(), POLICY)
    time.sleep(0.6)
    own_redis.go_on()
    eventually(lambda: works(impatient), "the store works again")
    assert impatient.page(None).jobs == ()


def test_a_restarted_server_goes_on_with_all_jobs(own_redis: RedisServer, impatient: JobStore) -> None:
    jobs = [queue(impatient) for _ in range(3)]
    assert impatient.claim("me", 60, 9) is not None
    for _ in range(2):
        own_redis.kill()
        with pytest.raises(Unavailable):
            impatient.get(jobs[0].id)
        own_redis.start()
        eventually(lambda: works(impatient), "the store works again")
    assert [job.id for job in impatient.page(None).jobs] == [job.id for job in reversed(jobs)]
    beat(impatient, jobs[0].id)
    assert impatient.finish(jobs[0].id, "me", JobState.SUCCEEDED, result={})


def test_a_connection_that_the_server_has_closed_is_made_again(
    own_redis: RedisServer, impatient: JobStore
) -> None:
    job = queue(impatient)
    own_redis.kill()
    own_redis.start()
    assert impatient.get(job.id) == job


def test_a_full_server_takes_no_job_and_lets_those_that_run_go_on(
    own_redis: RedisServer, impatient: JobStore
) -> None:
    store = impatient
    job, waits = queue(store), queue(store)
    assert store.claim("me", 60, 9) is not None
    own_redis.client.config_set("maxmemory", "1")
    with pytest.raises(InsufficientStorage):
        queue(store)
    beat(store, job.id)
    assert store.reap(3, ["me"]) == []
    assert store.cancel(waits.id).state is JobState.CANCELLED
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={"much": "x" * 1000})
    store.announce(["toy"], 60)
    assert len(store.forget(-1, 1)) == 2
    own_redis.client.config_set("maxmemory", "0")
    queue(store)


def test_a_server_that_may_not_write_is_unavailable(own_redis: RedisServer, impatient: JobStore) -> None:
    queue(impatient)
    own_redis.client.replicaof("127.0.0.1", str(free_port()))
    with pytest.raises(Unavailable):
        queue(impatient)
    own_redis.client.replicaof("NO", "ONE")
    queue(impatient)


def test_a_server_that_is_busy_with_something_else_is_unavailable(
    own_redis: RedisServer, impatient: JobStore
) -> None:
    own_redis.client.config_set("busy-reply-threshold", "50")

    def keep_busy() -> None:
        other = redis.Redis.from_url(own_redis.url)
        with pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)
        other.close()

    busy = threading.Thread(target=keep_busy)
    busy.start()
    eventually(lambda: not works(impatient), "the server is busy")
    own_redis.client.script_kill()
    busy.join()
    eventually(lambda: works(impatient), "the store works again")


def test_a_server_that_still_reads_its_files_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slowly = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with running_redis(*slowly) as own_redis:
        store = StoreAddress(own_redis.url).open(tmp_path)
        job = queue(store)
        with own_redis.client.pipeline(transaction=False) as many:
            for number in range(4000):
                many.set(f"something else {number}", "x")
            many.execute()
        # The delay is for files of another form than that of single writes.
        own_redis.client.bgrewriteaof()
        eventually(
            lambda: not own_redis.client.info("persistence")["aof_rewrite_in_progress"], "it is written"
        )
        own_redis.kill()
        own_redis.start(wait=False)
        eventually(lambda: works(store), "the store works again")
        assert "loading the dataset" in caplog.text
        assert store.get(job.id) == job
        store.close()


def test_a_cluster_is_followed_to_the_server_that_has_the_jobs(tmp_path: Path) -> None:
    options = [("--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(2)]
    with running_redis(*options[0]) as first, running_redis(*options[1]) as second:
        first.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
        second.client.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
        first.client.execute_command("CLUSTER MEET", "127.0.0.1", second.port, int(options[1][3]))
        for each in (first, second):
            eventually(
                lambda own_redis=each: (
                    own_redis.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                ),
                "the cluster is whole",
            )
        for prefix in ("one", "two", "three", "four"):  # in slots of both
            store = StoreAddress(first.url, prefix).open(tmp_path)
            job = queue(store)
            assert store.claim("me", 60, 9) is not None
            assert store.finish(job.id, "me", JobState.SUCCEEDED, result={})
            assert store.get(job.id).state is JobState.SUCCEEDED
            store.close()
        sizes = [own_redis.client.dbsize() for own_redis in (first, second)]
        assert all(sizes), sizes


def test_what_the_server_does_not_promise_is_said(own_redis: RedisServer, impatient: JobStore) -> None:
    assert impatient.durability_warnings() == []
    own_redis.client.config_set("appendfsync", "everysec")
    (late,) = impatient.durability_warnings()
    assert "appendfsync always" in late
    own_redis.client.config_set("appendonly", "no")
    own_redis.client.config_set("maxmemory", "100mb")
    own_redis.client.config_set("maxmemory-policy", "allkeys-lru")
    lost, evicted = impatient.durability_warnings()
    assert "appendonly yes" in lost
    assert "noeviction" in evicted
    own_redis.client.acl_setuser("default", commands=["-info", "-config"])
    assert impatient.durability_warnings() == []


def test_a_user_that_may_do_nothing_else_is_enough(own_redis: RedisServer, tmp_path: Path) -> None:
    (rule,) = re.findall(r"`(~\{nonet\}[^`]+)`", PAGE.read_text())
    own_redis.client.execute_command("ACL SETUSER", "jobs", "on", ">word", "-@all", *rule.split())
    store = StoreAddress(own_redis.url.replace(f":{PASSWORD}", "jobs:word")).open(tmp_path)
    job = queue(store)
    assert store.claim("me", 60, 9) is not None
    beat(store, job.id)
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={})
    assert store.durability_warnings() == []
    assert store.page(None).jobs == (store.get(job.id),)
    store.close()
    stranger = StoreAddress(own_redis.url.replace(f":{PASSWORD}", "jobs:word"), "other").open(tmp_path)
    with pytest.raises(Unavailable):
        queue(stranger)
    stranger.close()


def test_over_tls_only_a_server_that_is_vouched_for_gets_the_password(tmp_path: Path) -> None:
    key, certificate = made_certificate(tmp_path)
    port = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with running_redis("--tls-port", str(port), "--tls-auth-clients", "no", *files) as own_redis:
        url = own_redis.url.replace("redis://", "rediss://").replace(str(own_redis.port), str(port))
        stranger = StoreAddress(url).open(tmp_path)
        with pytest.raises(Unavailable):
            stranger.counts()
        stranger.close()
        store = StoreAddress(f"{url}?ssl_ca_certs={certificate}").open(tmp_path)
        assert queue(store).state is JobState.QUEUED
        store.close()


# -- secrets ----------------------------------------------------------------------------------------


def test_the_password_is_in_no_message_and_no_log(
    own_redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    for url in (
        own_redis.url.replace(PASSWORD, "hunter2"),
        own_redis.url.replace(str(own_redis.port), str(free_port())).replace(PASSWORD, "hunter2"),
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
    own_redis: RedisServer, impatient: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    own_redis.client.replicaof("127.0.0.1", str(free_port()))
    for _ in range(5):
        with pytest.raises(Unavailable):
            queue(impatient)
    own_redis.client.replicaof("NO", "ONE")
    queue(impatient)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_nothing_is_lost_or_done_twice_however_often_the_server_dies(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Callers submit until they are answered, workers work and die; meanwhile the server dies or hangs."""
    accepted: list[str] = []
    finished: Counter[str] = Counter()
    done = threading.Event()

    def open_store() -> JobStore:
        return StoreAddress(own_redis.url, timeout=1.0).open(tmp_path)

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
            own_redis.hang()
            time.sleep(1.2)
            own_redis.go_on()
        else:
            own_redis.kill()
            own_redis.start()
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
