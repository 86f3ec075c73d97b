"""The contract of a job store, held by the one in SQLite."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nonet.gateway.jobs import DATABASE, Job, JobPolicy, JobState, NewJob, SqliteJobStore, new_job_id
from nonet.gateway.jobs.job import Claim
from nonet.runtime.errors import Conflict, NotFound, QuotaExceeded, Unavailable

POLICY = JobPolicy(max_waiting=5, max_waiting_per_tenant=3)


def new(
    tenant: str = "ann", key: str = "", digest: str = "d", kind: str = "toy", subject: str = "x"
) -> NewJob:
    return NewJob(new_job_id(), kind, subject, tenant, {"n": 1}, digest, key)


def queue(store: SqliteJobStore, **fields: str) -> Job:
    job, fresh = store.submit(new(**fields), POLICY)
    assert fresh
    return job


def claim(store: SqliteJobStore, owner: str = "me", lease: float = 60.0) -> Claim:
    found = store.claim(owner, lease, 9)
    assert found is not None
    return found


def beat(store: SqliteJobStore, job: str, owner: str = "me", lease: float = 60.0, worker: str = "") -> object:
    return store.beat(
        job, owner, lease, worker=worker or "1@0", seconds=1.5, progress=0.5, phase="toying", eta_seconds=2.0
    )


def test_a_job_goes_from_queue_to_result(store: SqliteJobStore) -> None:
    job = queue(store)
    assert (job.state, job.progress, job.started, job.ended) == (JobState.QUEUED, 0.0, None, None)
    claimed = claim(store)
    assert (claimed.job.id, claimed.spec, claimed.job.attempts) == (job.id, {"n": 1}, 1)
    assert store.claimed(job.id, "me") is not None
    assert store.claimed(job.id, "you") is None
    beat(store, job.id)
    running = store.get(job.id)
    assert (running.progress, running.phase, running.eta_seconds) == (0.5, "toying", 2.0)
    assert store.spent("me") == 1.5
    assert store.finish(job.id, "me", JobState.SUCCEEDED, result={"answer": 42})
    ended = store.get(job.id)
    assert (ended.state, ended.result, ended.progress) == (JobState.SUCCEEDED, {"answer": 42}, 1.0)
    assert ended.revision > running.revision > job.revision
    assert not store.finish(job.id, "me", JobState.FAILED)
    assert store.get(job.id) == ended


def test_jobs_are_claimed_in_order_by_one_owner_each_and_never_more_than_may_run(
    store: SqliteJobStore,
) -> None:
    jobs = [queue(store).id for _ in range(3)]
    assert claim(store, "a").job.id == jobs[0]
    assert store.claim("b", 60, 1) is None
    assert claim(store, "b").job.id == jobs[1]
    assert claim(store, "c").job.id == jobs[2]
    assert store.claim("d", 60, 9) is None


def test_a_job_is_claimed_once_however_many_ask_at_once(tmp_path: Path) -> None:
    """Several processes, each with a connection of its own."""
    stores = [SqliteJobStore(tmp_path / DATABASE) for _ in range(4)]
    for _ in range(3):
        queue(stores[0])
    claims: list[str] = []

    def ask(store: SqliteJobStore, name: str) -> None:
        for number in range(5):
            found = store.claim(f"{name}{number}", 60, 9)
            if found is not None:
                claims.append(found.job.id)

    threads = [threading.Thread(target=ask, args=(store, str(index))) for index, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert len(claims) == len(set(claims)) == 3


def test_equal_submits_under_a_key_are_one_job_and_keys_are_the_tenants_own(store: SqliteJobStore) -> None:
    first = queue(store, key="k")
    again, fresh = store.submit(new(key="k"), POLICY)
    assert (again.id, fresh) == (first.id, False)
    with pytest.raises(Conflict):
        store.submit(new(key="k", digest="other"), POLICY)
    assert queue(store, tenant="bob", key="k").id != first.id
    assert queue(store).id != queue(store).id


def test_too_many_waiting_jobs_are_refused_and_a_replay_never_is(store: SqliteJobStore) -> None:
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


def test_a_tenant_sees_its_own_jobs_only(store: SqliteJobStore) -> None:
    mine, other = queue(store), queue(store, tenant="bob")
    assert [job.id for job in store.page("ann").jobs] == [mine.id]
    assert {job.id for job in store.page(None).jobs} == {mine.id, other.id}
    for call in (store.get, store.cancel):
        with pytest.raises(NotFound):
            call(other.id, "ann")
    with pytest.raises(NotFound):
        store.page("ann", after=other.id)


def test_cancelling(store: SqliteJobStore) -> None:
    waiting, running = queue(store), queue(store)
    assert store.cancel(waiting.id).state is JobState.CANCELLED
    assert store.cancel(waiting.id).state is JobState.CANCELLED
    assert claim(store).job.id == running.id
    asked = store.cancel(running.id)
    assert (asked.state, asked.cancelling) == (JobState.RUNNING, True)
    assert store.beat(
        running.id, "me", 9, worker="1@0", seconds=0, progress=0, phase="", eta_seconds=None
    ).cancelled
    given = store.give_back(running.id, "me", blame="it was killed", max_attempts=3)
    assert given is not None
    assert given.state is JobState.CANCELLED
    done = queue(store)
    claim(store)
    store.finish(done.id, "me", JobState.FAILED, error={"message": "no"})
    with pytest.raises(Conflict):
        store.cancel(done.id)


def test_deaths_count_and_stops_do_not(store: SqliteJobStore) -> None:
    job = queue(store).id
    claim(store)
    given = store.give_back(job, "me")
    assert given is not None
    assert (given.state, given.attempts) == (JobState.QUEUED, 0)
    for death in (1, 2):
        claim(store)
        given = store.give_back(job, "me", blame="it was killed (SIGKILL)", max_attempts=2)
        assert given is not None
        assert given.attempts == death
    assert given.state is JobState.FAILED
    assert given.error is not None
    assert given.error["code"] == "WORKER_CRASHED"
    assert "2 times" in given.error["message"]
    assert "SIGKILL" in given.error["message"]
    assert store.give_back(job, "me") is None


def test_a_lease_that_ran_out_or_whose_process_is_gone_is_given_back(store: SqliteJobStore) -> None:
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
    beat_after = store.beat(
        out, "out", 9, worker="1@0", seconds=1, progress=1, phase="late", eta_seconds=None
    )
    assert beat_after.lost
    assert store.get(out).phase != "late"


def test_a_lease_does_not_outlive_a_boot(store: SqliteJobStore, tmp_path: Path) -> None:
    job = queue(store).id
    claim(store)
    with sqlite3.connect(tmp_path / DATABASE) as file:
        file.execute("UPDATE jobs SET boot = 'another boot', lease = 1e12")
    file.close()
    assert [each.id for each in store.reap(3)] == [job]


def test_old_and_too_many_ended_jobs_are_forgotten(store: SqliteJobStore) -> None:
    ended = []
    for _ in range(4):
        job = queue(store).id
        claim(store)
        store.finish(job, "me", JobState.SUCCEEDED, result={})
        ended.append(job)
    waiting = queue(store).id
    assert store.forget(3600, 3) == 1
    assert [job.id for job in store.page(None).jobs] == [waiting, *ended[:0:-1]]
    assert store.forget(-1, 3) == 3
    assert [job.id for job in store.page(None).jobs] == [waiting]
    assert store.unfinished() == [waiting]


def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    store = SqliteJobStore(tmp_path / DATABASE)
    with pytest.raises(Unavailable, match="later release"):
        store.counts()
    store.close()


def test_a_damaged_file_is_unavailable_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database at all " * 1000)
    store = SqliteJobStore(tmp_path / DATABASE)
    for _ in range(2):
        with pytest.raises(Unavailable):
            store.counts()
    (tmp_path / DATABASE).unlink()
    assert sum(store.counts().values()) == 0
    store.close()


class Jobs(RuleBasedStateMachine):
    """Whatever happens: no job is lost or run by two, states only go where they may, revisions only rise."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteJobStore(Path(self.folder.name) / DATABASE)
        self.states: dict[str, JobState] = {}
        self.revisions: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.number = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule()
    def submit(self) -> None:
        try:
            job, _ = self.store.submit(new(), POLICY)
        except QuotaExceeded:
            return
        self.states[job.id] = JobState.QUEUED

    @rule()
    def claim(self) -> None:
        self.number += 1
        found = self.store.claim(f"w{self.number}", 60, 2)
        if found is not None:
            assert self.states[found.job.id] is JobState.QUEUED
            self.owners[found.job.id] = f"w{self.number}"

    @precondition(lambda self: self.owners)
    @rule(
        data=st.data(), what=st.sampled_from(["finish", "give back", "die", "beat"]), stranger=st.booleans()
    )
    def work(self, data: st.DataObject, what: str, stranger: bool) -> None:
        job = list(self.owners)[data.draw(st.integers(0, len(self.owners) - 1))]
        owner = "a stranger" if stranger else self.owners[job]
        before = self.store.get(job)
        if what == "finish":
            done = self.store.finish(job, owner, JobState.SUCCEEDED, result={})
            assert done != stranger
        elif what == "beat":
            orders = self.store.beat(
                job, owner, 60, worker="1@0", seconds=0, progress=0.1, phase="", eta_seconds=None
            )
            assert orders.lost == stranger
        else:
            blame = "it died" if what == "die" else ""
            assert (self.store.give_back(job, owner, blame=blame, max_attempts=2) is None) == stranger
        if stranger:
            assert self.store.get(job) == before
        elif what != "beat":
            del self.owners[job]

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = list(self.states)[data.draw(st.integers(0, len(self.states) - 1))]
        ended = self.states[job] in (JobState.SUCCEEDED, JobState.FAILED)
        try:
            self.store.cancel(job)
            assert not ended
        except Conflict:
            assert ended

    @invariant()
    def nothing_is_lost(self) -> None:
        found = {job.id: job for job in self.store.page(None, limit=100).jobs}
        assert found.keys() == self.states.keys()
        for name, job in found.items():
            before = self.states[name]
            assert not before.ended or job.state is before
            assert job.revision >= self.revisions.get(name, 0)
            assert (job.state is JobState.RUNNING) == (name in self.owners)
            assert (job.ended is not None) == job.state.ended
            assert (job.result is not None) == (job.state is JobState.SUCCEEDED)
            self.states[name], self.revisions[name] = job.state, job.revision
        counted = Counter(job.state for job in found.values())
        assert self.store.counts() == {state: counted[state] for state in JobState}
        assert counted[JobState.RUNNING] <= 2


TestJobsStateMachine = Jobs.TestCase
TestJobsStateMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
