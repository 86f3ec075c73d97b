"""What only the store in Redis promises: a server that is away, hangs, is full or is not as it should be."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from certificates import made_certificate
from redis_house import PASSWORD, RedisHouse, redis_house
from serving import eventually, free_port

from nonet.gateway.jobs import (
    Job,
    JobPolicy,
    JobState,
    JobStore,
    NewJob,
    OutcomeUnknown,
    StoreAddress,
    new_job_id,
)
from nonet.gateway.jobs.processes import place
from nonet.runtime.errors import InsufficientStorage, NotFound, QuotaExceeded, ServingError, Unavailable

PAGE = Path(__file__).parents[3] / "docs" / "jobs.md"
POLICY = JobPolicy(max_waiting=5, max_waiting_per_tenant=3)
_NAMES = itertools.count()


class Keys:
    """What one store has written."""

    def __init__(self, house: RedisHouse, prefix: str) -> None:
        self.client = house.client
        self.root = f"{{{prefix}}}:jobs"

    def of(self, *names: str) -> str:
        return ":".join((self.root, *names))

    def all(self) -> set[str]:
        return {name.removeprefix(self.root + ":") for name in self.client.scan_iter(match=f"{self.root}*")}

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds) + float(micros) / 1e6


@pytest.fixture
def prefix() -> str:
    return f"own{next(_NAMES)}"


@pytest.fixture
def keys(redis_server: RedisHouse, prefix: str) -> Keys:
    return Keys(redis_server, prefix)


@pytest.fixture
def store(redis_server: RedisHouse, prefix: str, tmp_path: Path) -> Iterator[JobStore]:
    made = StoreAddress(redis_server.url, prefix, 30.0).open(tmp_path)
    yield made
    made.close()


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


def new(tenant: str = "ann", key: str = "", webhook: str = "") -> NewJob:
    return NewJob(new_job_id(), "toy", "x", tenant, {}, "d", key, webhook)


def queue(store: JobStore, tenant: str = "ann") -> Job:
    return store.submit(new(tenant), POLICY)[0]


def beat(store: JobStore, job: str, worker: str = "1@0", lease: float = 60.0) -> None:
    orders = store.beat(
        job, "me", lease, worker=worker, seconds=1, progress=0.5, phase="toying", eta_seconds=None
    )
    assert not orders.lost


def works(store: JobStore) -> bool:
    try:
        store.counts()
    except ServingError:
        return False
    return True


# -- a server that is not well ----------------------------------------------------------------------


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
    redis_server: RedisHouse, store: JobStore
) -> None:
    job, waits = queue(store), queue(store)
    assert store.claim("me", 60, 9) is not None
    redis_server.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(InsufficientStorage):
            queue(store)
        beat(store, job.id)
        assert store.reap(3, ["me"]) == []
        assert store.cancel(waits.id).state is JobState.CANCELLED
        assert store.finish(job.id, "me", JobState.SUCCEEDED, result={"much": "x" * 1000})
        store.offer(["toy"], 60)
        assert store.forget(-1, 1) == 2
    finally:
        redis_server.client.config_set("maxmemory", "0")
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


def test_a_key_of_another_kind_is_unavailable_and_no_crash(store: JobStore, keys: Keys) -> None:
    keys.client.set(keys.of("state", "queued"), "not a set of jobs")
    for call in (lambda: queue(store), store.counts, lambda: store.claim("me", 60, 9)):
        with pytest.raises(Unavailable):
            call()
    keys.client.delete(keys.of("state", "queued"))
    queue(store)


def test_jobs_of_a_later_release_are_left_alone(store: JobStore, keys: Keys) -> None:
    keys.client.set(keys.of("layout"), "2")
    with pytest.raises(Unavailable, match="later release"):
        queue(store)
    assert keys.all() == {"layout"}


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
    assert impatient.concerns() == []
    house.client.config_set("appendonly", "no")
    house.client.config_set("maxmemory", "100mb")
    house.client.config_set("maxmemory-policy", "allkeys-lru")
    lost, evicted = impatient.concerns()
    assert "appendonly yes" in lost
    assert "noeviction" in evicted
    house.client.acl_setuser("default", commands=["-info"])
    assert impatient.concerns() == []


def test_a_user_that_may_do_nothing_else_is_enough(house: RedisHouse, tmp_path: Path) -> None:
    (rule,) = re.findall(r"`(~\{nonet\}[^`]+)`", PAGE.read_text())
    house.client.execute_command("ACL SETUSER", "jobs", "on", ">word", "-@all", *rule.split())
    store = StoreAddress(house.url.replace(f":{PASSWORD}", "jobs:word")).open(tmp_path)
    job = queue(store)
    assert store.claim("me", 60, 9) is not None
    beat(store, job.id)
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={})
    assert store.concerns() == []
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


# -- answers that were lost -------------------------------------------------------------------------


def test_a_submit_and_a_claim_may_be_sent_again(store: JobStore) -> None:
    sent = new(key="k")
    assert store.submit(sent, POLICY) == store.submit(sent, POLICY)
    assert store.submit(new(key="k"), POLICY) == (store.get(sent.id), False)
    assert len(store.page(None).jobs) == 1
    queue(store)
    assert store.claim("me", 60, 9) == store.claim("me", 60, 9)
    assert store.counts()[JobState.RUNNING] == 1


def test_a_machine_that_slept_is_not_late_for_ever(store: JobStore) -> None:
    """Its idea of the server's clock is wrong then; the first refusal puts it right."""
    job = queue(store)
    link = store._link  # type: ignore[attr-defined]
    link._ahead -= 1000.0
    assert store.get(job.id) == job
    assert queue(store).state is JobState.QUEUED


# -- leases -----------------------------------------------------------------------------------------


def test_leases_that_ran_out_while_nobody_could_renew_them_are_given_time_once(
    store: JobStore, keys: Keys
) -> None:
    """The server was away, hung, or its clock was set forward."""
    job = queue(store).id
    store.claim("me", 60, 9)

    def lapse() -> None:
        keys.client.zadd(keys.of("leases"), {job: keys.now() - 1})
        keys.client.set(keys.of("seen"), str(keys.now() - 100))

    lapse()
    assert store.reap(3) == []
    beat(store, job)  # the worker is alive: it keeps its job
    lapse()
    assert store.reap(3) == []
    lapse()  # it is not
    assert [each.id for each in store.reap(3)] == [job]


def test_a_clock_that_was_set_back_keeps_no_dead_worker_alive(store: JobStore, keys: Keys) -> None:
    job = queue(store).id
    store.claim("me", 60, 9)
    keys.client.zadd(keys.of("leases"), {job: keys.now() + 1e6})
    assert store.reap(3) == []
    left = keys.client.zscore(keys.of("leases"), job) - keys.now()
    assert 0 < left <= 60


def test_processes_of_other_machines_are_judged_by_their_leases_alone(store: JobStore, keys: Keys) -> None:
    far, near = queue(store, "ann").id, queue(store, "bob").id
    for owner, job in (("far", far), ("near", near)):
        store.claim(owner, 60, 9)
        store.beat(
            job, owner, 60, worker="999999@1", seconds=0, progress=0, phase="", eta_seconds=None
        )  # no process here has that name
    keys.client.hset(keys.of("job", far), "place", "another machine")
    assert [job.id for job in store.reap(3)] == [near]
    keys.client.zadd(keys.of("leases"), {far: keys.now() - 1})
    assert [job.id for job in store.reap(3)] == [far]


def test_each_machine_runs_as_many_jobs_as_it_may(store: JobStore, keys: Keys) -> None:
    for name in ("ann", "bob"):
        queue(store, name)
    first = store.claim("a", 60, 1)
    assert first is not None
    assert store.claim("b", 60, 1) is None
    keys.client.rename(keys.of("place", place()), keys.of("place", "another machine"))
    assert store.claim("b", 60, 1) is not None


# -- what is kept -----------------------------------------------------------------------------------


def test_everything_has_one_hash_tag_and_nothing_outlives_its_job(store: JobStore, keys: Keys) -> None:
    policy = JobPolicy()
    jobs = [store.submit(new(name, f"k{name}", "http://x/"), policy)[0].id for name in ("a", "b", "c", "d")]
    for owner in ("v", "w", "x"):
        store.claim(owner, 60, 9)
    store.finish(jobs[0], "v", JobState.SUCCEEDED, result={})
    store.give_back(jobs[1], "w", blame="it died", max_attempts=1)
    store.cancel(jobs[2])
    store.give_back(jobs[2], "x")
    store.cancel(jobs[3])
    store.claim_webhook(60)
    assert keys.client.dbsize() >= len(keys.all())
    assert all(name.startswith(f"{keys.root}:") for name in keys.client.scan_iter(match=f"*{keys.root}*"))
    assert store.forget(-1, 9) == 4
    assert keys.all() <= {"number", "ending", "layout", "seen"}


def test_deployments_with_other_prefixes_see_nothing_of_each_other(
    redis_server: RedisHouse, store: JobStore, tmp_path: Path
) -> None:
    job = queue(store)
    other = StoreAddress(redis_server.url, "other").open(tmp_path)
    assert other.page(None).jobs == ()
    with pytest.raises(NotFound):
        other.get(job.id)
    other.close()


def test_a_server_that_evicts_keys_stops_nobody_for_good(store: JobStore, keys: Keys) -> None:
    lost, kept, also_lost = (queue(store).id for _ in range(3))
    with pytest.raises(QuotaExceeded):
        queue(store)
    keys.client.delete(keys.of("job", lost), keys.of("job", also_lost))
    assert [job.id for job in store.page(None).jobs] == [kept]
    found = store.claim("me", 60, 9)
    assert found is not None
    assert found.job.id == kept
    queue(store)
    keys.client.delete(keys.of("job", kept))
    assert store.reap(3) == []
    assert store.claim("you", 60, 9) is not None


def test_the_files_of_the_jobs_lie_in_one_folder(store: JobStore) -> None:
    assert store.keep_in("this one")
    assert store.keep_in("this one")
    assert not store.keep_in("another")


def test_many_submits_at_once_keep_to_quota_and_key(store: JobStore, make: Callable[[], JobStore]) -> None:
    outcomes: list[str] = []

    def ask(mine: JobStore, number: int) -> None:
        for key in ("k", "", ""):
            try:
                outcomes.append(mine.submit(new(key=key), POLICY)[0].id)
            except QuotaExceeded:
                outcomes.append("")

    threads = [threading.Thread(target=ask, args=(make(), number)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = {job.id for job in store.page(None).jobs}
    assert len(waiting) == 3
    assert {outcome for outcome in outcomes if outcome} == waiting


@pytest.fixture
def make(redis_server: RedisHouse, prefix: str, tmp_path: Path) -> Iterator[Callable[[], JobStore]]:
    """Opens :func:`store` again and again, as several machines do."""
    made: list[JobStore] = []

    def open_it() -> JobStore:
        made.append(StoreAddress(redis_server.url, prefix, 30.0).open(tmp_path))
        return made[-1]

    yield open_it
    for each in made:
        each.close()
