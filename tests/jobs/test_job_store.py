"""The contract of a job store, held by the one in SQLite and the one in Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nonet.jobs import (
    Job,
    JobPolicy,
    JobState,
    JobStore,
    NewJob,
    new_job_id,
)
from nonet.jobs.job import Beat, Claim, error_of
from nonet.runtime.errors import Conflict, Internal, NotFound, QuotaExceeded, Unavailable

POLICY = JobPolicy(max_waiting=5, max_waiting_per_tenant=3)


def new(
    tenant: str = "ann", key: str = "", digest: str = "d", kind: str = "toy", subject: str = "x"
) -> NewJob:
    return NewJob(new_job_id(), kind, subject, tenant, {"n": 1}, digest, key)


def queue(store: JobStore, **fields: str) -> Job:
    job, fresh = store.submit(new(**fields), POLICY)
    assert fresh
    return job


def claim(store: JobStore, owner: str = "me", lease: float = 60.0) -> Claim:
    found = store.claim(owner, lease, 9)
    assert found is not None
    return found


def beat(store: JobStore, job: str, owner: str = "me", lease: float = 60.0, worker: str = "") -> object:
    return store.beat(job, owner, lease, Beat(worker or "1@0", 1.5, 0.5, "toying", 2.0))


def test_a_job_goes_from_queue_to_result(store: JobStore) -> None:
    job = queue(store)
    assert (job.state, job.progress, job.started, job.ended) == (JobState.QUEUED, 0.0, None, None)
    claimed = claim(store)
    assert (claimed.job.id, claimed.spec, claimed.job.attempts) == (job.id, {"n": 1}, 1)
    assert store.claimed(job.id, "me") is not None
    assert store.claimed(job.id, "you") is None
    beat(store, job.id)
    running = store.get(job.id)
    assert (running.progress, running.phase, running.eta_seconds) == (0.5, "toying", 2.0)
    own = store.claimed(job.id, "me")
    assert own is not None
    assert own.spent == 1.5
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={"answer": 42})
    ended = store.get(job.id)
    assert (ended.state, ended.result, ended.progress) == (JobState.SUCCEEDED, {"answer": 42}, 1.0)
    assert ended.revision > running.revision > job.revision
    assert not store.finish(job.id, "me", JobState.FAILED)
    assert store.get(job.id) == ended


def test_what_is_found_so_far_is_shown_until_the_work_ends_or_begins_again(store: JobStore) -> None:
    job = queue(store).id
    claim(store)
    assert store.get(job).partial is None
    store.beat(job, "me", 60, Beat("1@0", 0, 0.5, "toying", partial={"found": [1]}))
    shown = store.get(job)
    assert shown.partial == {"found": [1]}
    store.beat(job, "me", 60, Beat("1@0", 0, 0.5, "toying"))
    assert store.get(job) == shown  # nothing new: nobody who watches is told
    store.beat(job, "me", 60, Beat("1@0", 0, 0.5, "toying", partial={"found": [1, 2]}))
    assert store.get(job).partial == {"found": [1, 2]}
    assert store.get(job).revision > shown.revision
    left = store.give_back(job, "me")
    assert left is not None
    assert left.partial is None
    claim(store)
    store.beat(job, "me", 60, Beat("1@0", 0, 0.5, "toying", partial={"found": []}))
    store.finish(job, "me", JobState.SUCCEEDED, result={"answer": 42})
    assert (store.get(job).partial, store.get(job).result) == (None, {"answer": 42})


def test_jobs_are_claimed_in_order_by_one_owner_each_and_never_more_than_may_run(
    store: JobStore,
) -> None:
    jobs = [queue(store).id for _ in range(3)]
    assert claim(store, "a").job.id == jobs[0]
    assert store.claim("b", 60, 1) is None
    assert claim(store, "b").job.id == jobs[1]
    assert claim(store, "c").job.id == jobs[2]
    assert store.claim("d", 60, 9) is None


def test_a_job_is_claimed_once_however_many_ask_at_once(make_store: Callable[[], JobStore]) -> None:
    """Several processes, each with a connection of its own."""
    stores = [make_store() for _ in range(4)]
    for _ in range(3):
        queue(stores[0])
    claims: list[str] = []

    def ask(store: JobStore, name: str) -> None:
        for number in range(5):
            found = store.claim(f"{name}{number}", 60, 9)
            if found is not None:
                claims.append(found.job.id)

    threads = [threading.Thread(target=ask, args=(store, str(index))) for index, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == len(set(claims)) == 3


def test_equal_submits_under_a_key_are_one_job_and_keys_are_the_tenants_own(store: JobStore) -> None:
    first = queue(store, key="k")
    again, fresh = store.submit(new(key="k"), POLICY)
    assert (again.id, fresh) == (first.id, False)
    with pytest.raises(Conflict):
        store.submit(new(key="k", digest="other"), POLICY)
    assert queue(store, tenant="bob", key="k").id != first.id
    assert queue(store).id != queue(store).id


def test_too_many_waiting_jobs_are_refused_and_a_replay_never_is(store: JobStore) -> None:
    queue(store, key="k")
    for _ in range(2):
        queue(store)
    with pytest.raises(QuotaExceeded) as quota:
        store.submit(new(), POLICY)
    assert quota.value.retry_after
    assert not store.submit(new(key="k"), POLICY)[1]
    for _ in range(2):
        queue(store, tenant="bob")
    with pytest.raises(Unavailable) as full:
        store.submit(new(tenant="eve"), POLICY)
    assert full.value.retry_after
    claim(store)
    queue(store, tenant="eve")


def test_a_tenant_sees_its_own_jobs_only(store: JobStore) -> None:
    mine, other = queue(store), queue(store, tenant="bob")
    assert [job.id for job in store.page("ann").jobs] == [mine.id]
    assert {job.id for job in store.page(None).jobs} == {mine.id, other.id}
    for call in (store.get, store.cancel):
        with pytest.raises(NotFound):
            call(other.id, "ann")
    with pytest.raises(NotFound):
        store.page("ann", after=other.id)


def test_cancelling(store: JobStore) -> None:
    waiting, running = queue(store), queue(store)
    assert store.cancel(waiting.id).state is JobState.CANCELLED
    assert store.cancel(waiting.id).state is JobState.CANCELLED
    assert claim(store).job.id == running.id
    asked = store.cancel(running.id)
    assert (asked.state, asked.cancelling) == (JobState.RUNNING, True)
    assert store.beat(running.id, "me", 9, Beat("1@0", 0, 0, "")).cancelled
    given = store.give_back(running.id, "me", blame="it was killed", max_attempts=3)
    assert given is not None
    assert given.state is JobState.CANCELLED
    done = queue(store)
    claim(store)
    store.finish(done.id, "me", JobState.FAILED, error=error_of(Internal("no")))
    with pytest.raises(Conflict):
        store.cancel(done.id)


def test_deaths_count_and_stops_do_not(store: JobStore) -> None:
    job = queue(store).id
    claim(store)
    given = store.give_back(job, "me")
    assert given is not None
    assert (given.state, given.attempts) == (JobState.QUEUED, 1)
    for starts in (2, 3):
        claim(store)
        given = store.give_back(job, "me", blame="it was killed (SIGKILL)", max_attempts=2)
        assert given is not None
        assert given.attempts == starts
    assert given.state is JobState.FAILED
    assert given.error is not None
    assert given.error.code == "WORKER_CRASHED"
    assert "2 times" in given.error.message
    assert "SIGKILL" in given.error.message


def test_what_never_began_is_no_attempt(store: JobStore) -> None:
    job = queue(store).id
    for _ in range(2):
        claim(store)
        given = store.give_back(job, "me", begun=False)
        assert given is not None
        assert (given.state, given.attempts) == (JobState.QUEUED, 0)
    assert store.give_back(job, "me") is None


def test_a_lease_that_ran_out_or_whose_process_is_gone_is_given_back(store: JobStore) -> None:
    out, gone, kept, mine = (queue(store, tenant=name).id for name in ("a", "b", "c", "d"))
    claim(store, "out", lease=-1)
    claim(store, "gone")
    claim(store, "kept")
    claim(store, "mine", lease=-1)
    beat(store, gone, "gone", worker="999999@1")
    reaped = store.reap(3, ["mine"])
    assert {job.id for job in reaped} == {out, gone}
    assert {job.state for job in reaped} == {JobState.QUEUED}
    assert store.get(kept).state is store.get(mine).state is JobState.RUNNING
    assert store.beat(out, "out", 9, Beat("1@0", 1, 1, "late")).lost
    assert store.get(out).phase != "late"


def test_old_and_too_many_ended_jobs_are_forgotten(store: JobStore) -> None:
    ended = []
    for _ in range(4):
        job = queue(store).id
        claim(store)
        store.finish(job, "me", JobState.SUCCEEDED, result={})
        ended.append(job)
    waiting = queue(store).id
    assert store.forget(3600, 3) == ended[:1]
    assert [job.id for job in store.page(None).jobs] == [waiting, *ended[:0:-1]]
    assert sorted(store.forget(-1, 3)) == sorted(ended[1:])
    assert store.forget(-1, 3) == []
    assert [job.id for job in store.page(None).jobs] == [waiting]
    assert store.unfinished() == [waiting]


def test_the_times_of_jobs_are_on_the_stores_clock(store: JobStore) -> None:
    before = store.now()
    created = queue(store).created
    assert before <= created <= store.now()


def test_only_the_kinds_that_are_asked_for_are_claimed(store: JobStore) -> None:
    fit, other = queue(store, kind="fit").id, queue(store, kind="other", tenant="bob").id
    last = queue(store, kind="fit", tenant="bob").id
    assert store.claim("a", 60, 9, []) is None
    assert store.claim("b", 60, 9, ["nothing"]) is None
    claimed = [store.claim(name, 60, 9, kinds) for name, kinds in (("c", ["other"]), ("d", ["other", "fit"]))]
    assert [found.job.id for found in claimed if found is not None] == [other, fit]
    assert claim(store, "e").job.id == last


def test_the_ends_of_jobs_are_numbered_and_none_is_missed(store: JobStore) -> None:
    assert (store.last_ending(), store.ended(0)) == (0, [])
    jobs = [queue(store, tenant=name).id for name in ("a", "b", "c")]
    for name in ("x", "y"):
        claim(store, name)
    store.finish(jobs[1], "y", JobState.SUCCEEDED, result={})
    store.cancel(jobs[2])
    seen = store.last_ending()
    assert [job.id for job in store.ended(0)] == [jobs[1], jobs[2]]
    store.finish(jobs[0], "x", JobState.FAILED, error=error_of(Internal("no")))
    assert [job.id for job in store.ended(seen)] == [jobs[0]]
    assert [job.ending for job in store.ended(0)] == [1, 2, 3]
    assert sorted(store.forget(-1, 9)) == sorted(jobs)
    assert store.last_ending() == 3
    after = queue(store)
    store.cancel(after.id)
    assert [job.id for job in store.ended(3)] == [after.id]


def test_work_is_offered_for_a_while(store: JobStore) -> None:
    assert not store.is_available("toy")
    store.announce(["toy", "fit"], 60)
    assert store.is_available("toy")
    assert not store.is_available("other")
    store.announce(["toy"], -1)  # another's
    assert store.is_available("toy")
    store.announce(["toy", "fit"], -1)
    assert not store.is_available("toy")
    assert not store.is_available("fit")


def test_the_job_of_a_subject_that_runs_comes_before_those_that_wait(store: JobStore) -> None:
    assert store.active("toy", "x") is None
    first, second = queue(store).id, queue(store).id
    queue(store, subject="y")
    assert store.active("toy", "x") == store.get(first)
    claim(store)
    store.give_back(first, "me")
    store.cancel(first)
    assert store.active("toy", "x") == store.get(second)
    claim(store)
    third = queue(store).id
    active = store.active("toy", "x")
    assert active is not None
    assert active.id == second
    store.finish(second, "me", JobState.FAILED, error=error_of(Internal("no")))
    assert store.active("toy", "x") == store.get(third)
    assert store.active("fit", "x") is None


def test_pages_of_one_tenant_by_state(store: JobStore) -> None:
    jobs = [queue(store).id for _ in range(3)]
    queue(store, tenant="bob")
    claim(store)
    store.finish(jobs[0], "me", JobState.SUCCEEDED, result={})
    claim(store)
    page = store.page("ann", states=[JobState.QUEUED, JobState.SUCCEEDED])
    assert ([job.id for job in page.jobs], page.more) == ([jobs[2], jobs[0]], False)
    page = store.page("ann", limit=2)
    assert ([job.id for job in page.jobs], page.more) == ([jobs[2], jobs[1]], True)
    page = store.page("ann", limit=2, after=jobs[1])
    assert ([job.id for job in page.jobs], page.more) == ([jobs[0]], False)


def test_what_a_caller_sends_comes_back_as_it_was(store: JobStore) -> None:
    spec = {"names": ["ü", "\n", '"', ":", "{x}"], "number": 1.5, "nothing": None}
    new_one = NewJob(new_job_id(), "toy", "ü:{x}", "a.b-c_d", spec, "d", "key:{}*", "http://x/?é")
    job, _ = store.submit(new_one, POLICY)
    assert (job.subject, job.tenant, job.webhook and job.webhook.url) == ("ü:{x}", "a.b-c_d", "http://x/?é")
    assert claim(store).spec == spec
    assert store.active("toy", "ü:{x}") is not None
    reason = 'a "quoted" reason, ü'
    given = store.give_back(job.id, "me", blame=reason, max_attempts=1)
    assert given is not None
    assert given.error is not None
    assert reason in given.error.message
    assert given.error.param is None
