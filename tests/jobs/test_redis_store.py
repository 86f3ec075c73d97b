"""What only the store in Redis promises: leases on its clock, and what is kept in which keys."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nonet.jobs import JobPolicy, JobState, JobStore, NewJob, StoreAddress, new_job_id
from nonet.jobs.job import Beat
from nonet.jobs.process_identity import place
from nonet.runtime.errors import NotFound, QuotaExceeded, Unavailable
from tests.support.redis_jobs import POLICY, Keys, beat, new, queue
from tests.support.redis_server import RedisServer

_NAMES = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"own{next(_NAMES)}"


@pytest.fixture
def keys(redis_server: RedisServer, prefix: str) -> Keys:
    return Keys(redis_server, prefix)


@pytest.fixture
def store(redis_server: RedisServer, prefix: str, tmp_path: Path) -> Iterator[JobStore]:
    made = StoreAddress(redis_server.url, prefix, 30.0).open(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make(redis_server: RedisServer, prefix: str, tmp_path: Path) -> Iterator[Callable[[], JobStore]]:
    """Opens :func:`store` again and again, as several machines do."""
    made: list[JobStore] = []

    def open_it() -> JobStore:
        made.append(StoreAddress(redis_server.url, prefix, 30.0).open(tmp_path))
        return made[-1]

    yield open_it
    for each in made:
        each.close()


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
        store.beat(job, owner, 60, Beat("999999@1", 0, 0, ""))  # no process here has that name
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
    assert len(store.forget(-1, 9)) == 4
    assert keys.all() <= {"number", "ending", "layout", "seen"}


def test_deployments_with_other_prefixes_see_nothing_of_each_other(
    redis_server: RedisServer, store: JobStore, tmp_path: Path
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
    assert store.agree_on_folder("this one")
    assert store.agree_on_folder("this one")
    assert not store.agree_on_folder("another")


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


def test_a_key_of_another_kind_is_unavailable_and_no_crash(store: JobStore, keys: Keys) -> None:
    keys.client.set(keys.of("state", "queued"), "not a set of jobs")
    for call in (lambda: queue(store), store.counts, lambda: store.claim("me", 60, 9)):
        with pytest.raises(Unavailable):
            call()
    keys.client.delete(keys.of("state", "queued"))
    queue(store)


def test_jobs_that_an_earlier_release_has_queued_are_taken_and_told(store: JobStore, keys: Keys) -> None:
    """It knows a list for each kind, and neither needs nor who waits for what."""
    jobs = [queue(store, name).id for name in ("ann", "bob", "eve")]
    keys.client.delete(keys.of("lanes"))
    assert store.claim("other", 60, 9, ["other"]) is None
    first = store.claim("me", 60, 9, ["toy"])
    assert first is not None
    assert first.job.id == jobs[0]
    assert [(each.words, each.waiting) for each in store.demand().queues] == [(("toy",), 2)]
    store.note(("toy",), "waiting: x")
    assert [store.get(job).phase for job in jobs] == ["starting", "waiting: x", "waiting: x"]
    second = store.claim("you", 60, 9, ["toy"])
    assert second is not None
    assert second.job.id == jobs[1]


def test_what_an_earlier_release_does_to_jobs_with_needs_is_put_right(store: JobStore, keys: Keys) -> None:
    """It gives back to, and takes from, the list of the kind alone."""
    given, cancelled = (
        NewJob(new_job_id(), "toy", "x", "ann", {}, "d", requirements=("a:1",)) for _ in range(2)
    )
    for each in (given, cancelled):
        store.submit(each, POLICY)
    lane = keys.of("queue", "toy a:1")
    number = keys.client.zscore(lane, given.id)
    keys.client.zrem(lane, given.id)
    keys.client.zadd(keys.of("queue", "toy"), {given.id: number})
    store.cancel(cancelled.id)
    keys.client.zadd(lane, {cancelled.id: number})
    assert store.claim("a", 60, 9, ["toy"]) is None
    assert [(each.words, each.waiting) for each in store.demand().queues] == [(("toy", "a:1"), 1)]
    found = store.claim("b", 60, 9, ["toy", "a:1"])
    assert found is not None
    assert found.job.id == given.id
    assert store.demand().queues == ()
    assert not keys.client.exists(lane, keys.of("queue", "toy"), keys.of("lanes"))


def test_releases_that_know_kinds_alone_hear_of_each_other(store: JobStore, keys: Keys) -> None:
    keys.client.zadd(keys.of("heard"), {"toy": keys.now() + 60})
    assert store.is_available("toy")
    assert store.demand().workers == (frozenset({"toy"}),)
    store.announce(["other", "a:1"], 60)
    assert keys.client.zscore(keys.of("heard"), "other") > keys.now()
    assert keys.client.zscore(keys.of("heard"), "a:1") is None
    store.announce(["toy"], -1)
    store.announce(["other", "a:1"], 60)
    assert not keys.client.zscore(keys.of("heard"), "toy")


def test_jobs_of_a_later_release_are_left_alone(store: JobStore, keys: Keys) -> None:
    keys.client.set(keys.of("layout"), "2")
    with pytest.raises(Unavailable, match="later release"):
        queue(store)
    assert keys.all() == {"layout"}
