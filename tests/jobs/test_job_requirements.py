"""What jobs need and workers offer, as the store in SQLite and the one in Redis keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.jobs import Job, JobPolicy, JobState, JobStore, NewJob, StoreAddress, new_job_id
from nonet.jobs.requirements import Queue, lacking, note_of, requirements_text

POLICY = JobPolicy()
ENGINE, GPU = "engine:fast", "device:gpu"


def queue(store: JobStore, *needs: str, kind: str = "toy") -> Job:
    return store.submit(NewJob(new_job_id(), kind, "x", "ann", {}, "d", requirements=needs), POLICY)[0]


def claimed(store: JobStore, owner: str, *words: str) -> str:
    """Id of the job that who has these words gets, "" if none."""
    found = store.claim(owner, 60, 99, words)
    return "" if found is None else found.job.id


def test_a_worker_gets_the_oldest_job_that_needs_no_more_than_it_has(store: JobStore) -> None:
    both, engine, plain = queue(store, GPU, ENGINE), queue(store, ENGINE), queue(store)
    other = queue(store, ENGINE, kind="other")
    assert claimed(store, "a") == ""
    assert claimed(store, "b", ENGINE, GPU) == ""  # it does not know the kind
    assert claimed(store, "c", "toy", "engine:slow") == plain.id
    assert claimed(store, "d", "toy", ENGINE) == engine.id
    assert claimed(store, "e", "toy", ENGINE) == ""
    assert claimed(store, "f", "toy", "other", ENGINE) == other.id
    assert claimed(store, "g", "other", ENGINE, "toy", GPU) == both.id


def test_a_job_that_is_given_back_needs_what_it_needed(make_store: Callable[[], JobStore]) -> None:
    store = make_store()
    job = queue(store, ENGINE)
    assert claimed(store, "a", "toy", ENGINE) == job.id
    store.give_back(job.id, "a", blame="it was killed", max_attempts=3)
    assert claimed(make_store(), "b", "toy") == ""
    assert claimed(make_store(), "c", "toy", ENGINE) == job.id


def test_who_takes_all_takes_what_needs_something_too(store: JobStore) -> None:
    jobs = [queue(store, ENGINE).id, queue(store).id]
    claims = [store.claim(name, 60, 9) for name in ("a", "b")]
    assert [found.job.id for found in claims if found is not None] == jobs


def test_queues_are_told_by_what_their_jobs_need(store: JobStore) -> None:
    assert store.demand().queues == ()
    first, second = queue(store, GPU, ENGINE), queue(store, ENGINE, GPU, GPU)
    third = queue(store)
    wanted = {Queue(("toy", GPU, ENGINE), 2), Queue(("toy",), 1)}
    assert set(store.demand().queues) == wanted
    store.cancel(third.id)
    assert claimed(store, "a", "toy", GPU, ENGINE) == first.id
    assert store.demand().queues == (Queue(("toy", GPU, ENGINE), 1),)
    store.cancel(second.id)
    assert store.demand().queues == ()


def test_offers_are_told_whole(store: JobStore) -> None:
    store.announce(["toy", ENGINE], 60)
    store.announce(["toy", GPU], 60)
    store.announce(["serves:a"], 60)
    store.announce(["other"], -1)
    offers = store.demand().workers
    assert {frozenset({"toy", ENGINE}), frozenset({"toy", GPU}), frozenset({"serves:a"})} <= set(offers)
    for order in (offers, offers[::-1]):
        assert lacking(("toy", ENGINE, GPU), order) == (GPU,)
    assert lacking(("toy", GPU), offers) == ()
    assert lacking(("other",), offers) == ("other",)
    assert store.is_available("toy")
    assert not store.is_available("serves:")


def test_a_note_is_the_phase_of_all_that_wait_for_the_same(store: JobStore) -> None:
    waits, goes_on, plain = queue(store, ENGINE), queue(store, ENGINE), queue(store)
    assert claimed(store, "a", "toy", ENGINE) == waits.id
    assert claimed(store, "b", "toy", ENGINE) == goes_on.id
    store.give_back(goes_on.id, "b")
    note = note_of([ENGINE])
    assert note == "waiting: no worker offers engine fast"
    store.note(("toy", ENGINE), note)
    before = store.get(goes_on.id)
    assert before.phase == note
    store.note(("toy", ENGINE), note)
    assert store.get(goes_on.id) == before  # said once is said
    # What joins the queue later says it too.
    assert queue(store, ENGINE).phase == note
    store.give_back(waits.id, "a")
    assert store.get(waits.id).phase == note
    assert store.get(plain.id) == plain
    assert Queue(("toy", ENGINE), 3, note) in store.demand().queues
    store.note(("toy", ENGINE), "")
    after = store.get(goes_on.id)
    assert (after.phase, after.revision > before.revision) == ("waiting to go on", True)
    assert {job.phase for job in store.page(None).jobs if job.started is None} == {""}
    assert claimed(store, "c", "toy", ENGINE) == waits.id
    assert store.get(waits.id).phase == "starting"


def test_a_note_of_nobody_changes_nothing(store: JobStore) -> None:
    store.note(("toy", ENGINE), "waiting: x")
    assert queue(store, ENGINE).phase == ""
    job = queue(store)
    claimed(store, "a", "toy")
    store.note(("toy",), "waiting: x")
    assert store.get(job.id).phase == "starting"


def test_needs_are_words_with_a_colon() -> None:
    for wrong in ("engine", "engine: fast", "", "a:b c"):
        with pytest.raises(ValueError, match="one word with a colon"):
            NewJob(new_job_id(), "toy", "x", "ann", {}, "d", requirements=(wrong,))
    assert requirements_text(["b:1", "a:2", "b:1"]) == "a:2 b:1"


NEEDS = st.sets(st.sampled_from(["a:1", "b:1", "b:2"]))
STEPS = st.tuples(st.sampled_from(["submit", "claim", "give back", "cancel"]), NEEDS)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_no_claim_takes_what_does_not_fit_or_passes_by_what_does(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_server").url if kind == "redis" else ""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(STEPS, max_size=25))
    def holds(steps: list[tuple[str, set[str]]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = StoreAddress(url, f"needs-{new_job_id()}", 30.0).open(Path(folder))
            waiting: dict[str, set[str]] = {}
            running: dict[str, tuple[int, set[str]]] = {}
            order: list[str] = []
            for number, (what, words) in enumerate(steps):
                if what == "submit":
                    order.append(queue(store, *words).id)
                    waiting[order[-1]] = words
                elif what == "claim":
                    fits = [job for job in order if job in waiting and waiting[job] <= words]
                    assert claimed(store, str(number), "toy", *words) == (fits[0] if fits else "")
                    if fits:
                        running[fits[0]] = (number, waiting.pop(fits[0]))
                elif what == "give back" and running:
                    job, (owner, needs) = running.popitem()
                    assert store.give_back(job, str(owner)) is not None
                    waiting[job] = needs
                elif what == "cancel" and waiting:
                    job, _ = waiting.popitem()
                    assert store.cancel(job).state is JobState.CANCELLED
                counted = {frozenset(each.words[1:]): each.waiting for each in store.demand().queues}
                assert sum(counted.values()) == len(waiting)
                assert all(
                    count == sum(needs == each for each in waiting.values())
                    for needs, count in counted.items()
                )
            store.close()

    holds()
