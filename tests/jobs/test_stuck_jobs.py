"""Jobs that nobody can take say so, on real stores and a clock of the test's own."""

from __future__ import annotations

import logging

import pytest

from nonet.jobs import JobPolicy, JobStore, NewJob, new_job_id
from nonet.jobs.async_store import AsyncStore
from nonet.jobs.stuck_jobs import StuckJobs

ENGINE = "engine:fast"


class Watch:
    """A process that looks at what waits, whose time passes when the test says so."""

    def __init__(self, store: JobStore) -> None:
        self.now = 0.0
        self.store = store
        self.waiting = StuckJobs(AsyncStore(store), lambda: self.now)

    async def after(self, seconds: float) -> None:
        self.now += seconds
        await self.waiting.look()


def queue(store: JobStore, *needs: str) -> str:
    return store.submit(NewJob(new_job_id(), "toy", "x", "ann", {}, "d", requirements=needs), JobPolicy())[
        0
    ].id


async def test_a_job_says_so_when_nobody_came_for_a_while_and_no_more_when_somebody_does(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    watch = Watch(store)
    store.announce(["toy"], 60)
    job, plain = queue(store, ENGINE), queue(store)
    for _ in range(2):
        await watch.after(2.0)
        assert store.get(job).phase == ""
        assert watch.waiting.counts() == {}
    for _ in range(3):
        await watch.after(2.0)
    assert store.get(job).phase == "waiting: no worker offers engine fast"
    assert store.get(plain).phase == ""
    assert watch.waiting.counts() == {("toy", ENGINE): 1}
    assert caplog.text.count("no worker offers engine fast") == 1
    store.announce(["toy", ENGINE], 60)
    await watch.after(0.1)
    assert store.get(job).phase == ""
    assert watch.waiting.counts() == {}


async def test_whoever_comes_later_does_not_take_the_note_back(store: JobStore) -> None:
    first, second = Watch(store), Watch(store)
    job = queue(store, ENGINE)
    await first.after(0.0)
    await first.after(10.0)
    noted = store.get(job)
    assert noted.phase == "waiting: no worker offers toy and engine fast"
    await second.after(0.0)
    assert second.waiting.counts() == {("toy", f"toy {ENGINE}"): 1}
    assert store.get(job) == noted


async def test_two_workers_that_have_a_half_each_are_nobody(store: JobStore) -> None:
    watch = Watch(store)
    store.announce(["toy"], 60)
    store.announce(["other", ENGINE], 60)
    job = queue(store, ENGINE)
    await watch.after(0.0)
    await watch.after(10.0)
    assert store.get(job).phase == "waiting: no worker offers engine fast"


async def test_a_short_absence_is_none(store: JobStore) -> None:
    """As when the store was away for longer than offers count."""
    watch = Watch(store)
    job = queue(store)
    for _ in range(3):
        await watch.after(4.0)
        store.announce(["toy"], 60)
        await watch.after(1.0)
        store.announce(["toy"], -1)
    assert store.get(job).revision == 1


async def test_a_repository_that_nobody_has_is_waited_for(store: JobStore) -> None:
    watch = Watch(store)
    store.announce(["serves:new"], 600)
    store.announce(["toy", "repository:new"], 600)
    job = queue(store, "repository:old")
    for seconds in (0.0, 10.0, 1000.0):
        await watch.after(seconds)
    assert store.get(job).phase == "waiting: no worker offers repository old"
    assert store.claim("me", 60, 9, ["toy", "repository:new"]) is None
