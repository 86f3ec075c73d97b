"""The promises of a job store under any sequence of calls, held by the one in SQLite and the one in Redis."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nonet.jobs import JobPolicy, JobState, NewJob, StoreAddress, new_job_id
from nonet.jobs.job import Beat
from nonet.runtime.errors import Conflict, QuotaExceeded

POLICY = JobPolicy(max_waiting=5, max_waiting_per_tenant=3)


class Jobs(RuleBasedStateMachine):
    """Whatever happens: no job is lost or run by two, states only go where they may, revisions only rise."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = StoreAddress().open(Path(self.folder.name))
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
            job, _ = self.store.submit(NewJob(new_job_id(), "toy", "x", "ann", {"n": 1}, "d"), POLICY)
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
            orders = self.store.beat(job, owner, 60, Beat("1@0", 0, 0.1, ""))
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


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_promises_hold_whatever_happens(kind: str, request: pytest.FixtureRequest) -> None:
    class Machine(Jobs):
        @initialize()
        def choose(self) -> None:
            if kind == "redis":
                url = request.getfixturevalue("redis_server").url
                self.store.close()
                self.store = StoreAddress(url, f"machine-{new_job_id()}", 30.0).open(Path(self.folder.name))

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None)
    )
