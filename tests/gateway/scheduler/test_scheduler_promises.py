"""The scheduler's promises, in simulated time: conservation, order, batch bounds, no idle device."""

from __future__ import annotations

import contextlib
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nonet.gateway.scheduler import (
    Batch,
    DeviceState,
    Item,
    ItemState,
    LatencyModel,
    Scheduler,
)
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, ServingError, Unavailable

KEYS = [("small", "1"), ("large", "1")]
PROFILES = {KEYS[0]: {1: 0.01, 8: 0.05}, KEYS[1]: {1: 0.1, 4: 0.3}}
MAX_ROWS = {KEYS[0]: 8, KEYS[1]: 4}
LIMITS = SchedulerSettings(max_queue=20, safety_factor=1.0)


def device(name: str = "cpu", lanes: int = 1, speed: float = 1.0) -> DeviceState:
    state = DeviceState(name, lanes, lambda key: True)
    for key, profile in PROFILES.items():
        state.latency[key] = LatencyModel({rows: seconds / speed for rows, seconds in profile.items()})
    return state


def make(
    now: float,
    *,
    key: tuple[str, str] = KEYS[0],
    rows: int = 1,
    within: float = math.inf,
    priority: int = 1,
    group: str = "same",
    steps: int = 1,
) -> Item:
    return Item(key, rows, group, now + within, priority, now, max_rows=MAX_ROWS[key], left=float(steps))


class SchedulerMachine(RuleBasedStateMachine):
    """Random callers, lanes and clock against the real scheduler."""

    @initialize(lanes=st.integers(1, 3), second=st.booleans())
    def build(self, lanes: int, second: bool) -> None:
        devices = [device("slow", lanes)] + ([device("fast", 1, speed=4.0)] if second else [])
        self.scheduler = Scheduler(LIMITS, devices, overhead=0.0)
        self.now = 0.0
        self.fate: dict[int, str] = {}
        self.items: list[Item] = []
        self.running: list[Batch] = []
        self.steps: dict[int, int] = {}
        self.gone: set[int] = set()

    def settle(self, item: Item, fate: str) -> None:
        assert id(item) not in self.fate, f"resolved twice: {self.fate[id(item)]}, then {fate}"
        self.fate[id(item)] = fate

    @rule(
        key=st.sampled_from(KEYS),
        rows=st.integers(1, 4),
        within=st.one_of(st.just(math.inf), st.floats(-0.05, 2.0)),
        priority=st.integers(0, 2),
        group=st.sampled_from("ab"),
        steps=st.sampled_from([1, 1, 2, 5]),
    )
    def submit(
        self, key: tuple[str, str], rows: int, within: float, priority: int, group: str, steps: int
    ) -> None:
        item = make(self.now, key=key, rows=rows, within=within, priority=priority, group=group, steps=steps)
        self.items.append(item)
        self.steps[id(item)] = steps
        try:
            self.scheduler.submit(item, self.now)
        except ServingError as error:
            self.settle(item, "refused")
            if isinstance(error, Unavailable):
                assert error.retry_after is not None
                assert error.retry_after > 0

    @rule(seconds=st.floats(0.0, 0.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def pump(self) -> None:
        for item in self.scheduler.expire(self.now):
            self.settle(item, "expired")
        for name, state in self.scheduler.devices.items():
            while (batch := self.scheduler.pull(name, self.now)) is not None:
                self.check(batch, state)
                self.running.append(batch)
        self.nobody_waits_beside_an_idle_device()

    def check(self, batch: Batch, state: DeviceState) -> None:
        assert batch.rows == sum(item.rows for item in batch.items)
        assert batch.rows <= max(MAX_ROWS[batch.key], batch.items[0].rows)
        assert len({item.group for item in batch.items}) == 1
        assert all(item.key == batch.key for item in batch.items)
        assert len(state.running) <= state.lanes
        end = self.now + batch.predicted
        assert all(end <= item.deadline + 1e-9 for item in batch.items)
        ranks = [item.rank for item in batch.items]
        assert ranks == sorted(ranks)

    def nobody_waits_beside_an_idle_device(self) -> None:
        for state in self.scheduler.devices.values():
            if state.free_lanes == 0:
                continue
            for queue in self.scheduler.queues.values():
                for item in queue:
                    run = state.model(item.key).predict(item.rows, self.now)
                    assert self.now + run * item.left > item.deadline - 1e-9

    @precondition(lambda self: self.running)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.running.remove(batch)
        self.now = max(self.now, batch.started + batch.predicted)
        self.scheduler.finish(batch, self.now, None if failed else batch.predicted or None)
        for item in batch.items:
            self.steps[id(item)] -= 1
            if id(item) in self.gone:
                self.settle(item, "left")
            elif self.steps[id(item)] > 0 and not failed:
                self.scheduler.requeue_step(item, self.now)
            else:
                self.settle(item, "answered")

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.items))
        waiting = item.state is ItemState.WAITING and id(item) not in self.fate
        if waiting:
            assert self.scheduler.cancel(item)
            self.settle(item, "cancelled")
        elif id(item) not in self.fate:
            assert not self.scheduler.cancel(item)
            self.gone.add(id(item))  # it ends with the step that runs

    @precondition(lambda self: self.items)
    @rule(data=st.data(), priority=st.integers(0, 2), within=st.floats(0.0, 2.0))
    def share(self, data: st.DataObject, priority: int, within: float) -> None:
        item = data.draw(st.sampled_from(self.items))
        if id(item) not in self.fate:
            self.scheduler.share(item, priority, self.now + within)

    @invariant()
    def everything_is_somewhere_exactly_once(self) -> None:
        if not hasattr(self, "items"):
            return
        waiting = [item for queue in self.scheduler.queues.values() for item in queue]
        running = [item for batch in self.running for item in batch.items]
        places = Counter(id(item) for item in waiting + running)
        assert all(count == 1 for count in places.values())
        assert not places.keys() & self.fate.keys()
        assert len(places) + len(self.fate) == len(self.items)
        for queue in self.scheduler.queues.values():
            assert queue.rows == sum(item.rows for item in queue)
            # What has taken a step was let in before and is not refused again.
            assert sum(item.steps == 0 for item in queue) <= LIMITS.max_queue
            ranks = [item.rank for item in queue]
            assert ranks == sorted(ranks)


SchedulerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSchedulerMachine = SchedulerMachine.TestCase


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.floats(0.0, 0.08), min_size=1, max_size=60),
    slo=st.floats(0.06, 0.5),
    lanes=st.integers(1, 3),
)
def test_with_a_true_profile_and_equal_urgency_what_is_let_in_is_on_time(
    gaps: list[float], slo: float, lanes: int
) -> None:
    scheduler = Scheduler(LIMITS, [device(lanes=lanes)], overhead=0.0)
    arrivals = []
    now = 0.0
    for gap in gaps:
        now += gap
        arrivals.append(now)
    pending = list(arrivals)
    running: list[Batch] = []
    let_in = answered = 0
    while pending or running:
        next_end = min((batch.started + batch.predicted for batch in running), default=math.inf)
        if pending and pending[0] <= next_end:
            now = pending.pop(0)
            try:
                scheduler.submit(make(now, within=slo), now)
                let_in += 1
            except DeadlineUnattainable:
                pass
        else:
            now = next_end
            batch = min(running, key=lambda batch: batch.started + batch.predicted)
            running.remove(batch)
            scheduler.finish(batch, now, batch.predicted)
            for item in batch.items:
                assert now <= item.deadline + 1e-9
                answered += 1
        assert scheduler.expire(now) == []
        while (pulled := scheduler.pull("cpu", now)) is not None:
            running.append(pulled)
    assert answered == let_in


@settings(deadline=None, max_examples=30)
@given(data=st.data(), lanes=st.integers(1, 2))
def test_an_item_of_many_steps_holds_nothing_of_its_priority_up_by_more_than_one(
    data: st.DataObject, lanes: int
) -> None:
    """From the arrival of an item to its start, each other item heads at most one batch with a step."""
    scheduler = Scheduler(LIMITS.model_copy(update={"max_queue": 1000}), [device(lanes=lanes)], overhead=0.0)
    arrivals = data.draw(
        st.lists(
            st.tuples(
                st.floats(0.0, 1.0),
                st.sampled_from(KEYS),
                st.one_of(st.just(math.inf), st.floats(0.3, 5.0)),
                st.sampled_from("ab"),
                st.sampled_from([1, 1, 1, 4, 12]),
            ),
            min_size=2,
            max_size=16,
        )
    )
    pending = sorted(arrivals, key=lambda arrival: arrival[0])
    running: list[Batch] = []
    waiting: dict[int, Item] = {}
    left: dict[int, int] = {}
    heads: list[tuple[float, float, int]] = []
    kept: list[Item] = []  # alive to the end: an identity that is used again would be taken for one item
    while pending or running or scheduler.queues:
        ends = min((batch.started + batch.predicted for batch in running), default=math.inf)
        if pending and pending[0][0] <= ends:
            now, key, within, group, steps = pending.pop(0)
            item = make(now, key=key, within=within, group=group, steps=steps)
            kept.append(item)
            with contextlib.suppress(DeadlineUnattainable):
                scheduler.submit(item, now)
                waiting[id(item)] = item
                left[id(item)] = steps
        else:
            assert running, "something waits, and nothing runs"
            now = ends
            batch = min(running, key=lambda batch: batch.started + batch.predicted)
            running.remove(batch)
            scheduler.finish(batch, now, batch.predicted)
            for item in batch.items:
                left[id(item)] -= 1
                if left[id(item)]:
                    scheduler.requeue_step(item, now)
        for item in scheduler.expire(now):
            waiting.pop(id(item), None)
        while (pulled := scheduler.pull("cpu", now)) is not None:
            running.append(pulled)
            for item in pulled.items:
                if item.steps == 0 and (started := waiting.pop(id(item), None)) is not None:
                    meanwhile = Counter(
                        head for begin, end, head in heads if begin < now and end > started.arrival
                    )
                    assert not [head for head, count in meanwhile.items() if count > 1]
            heads.append((now, now + pulled.predicted, id(pulled.items[0])))
    assert not waiting


def test_refuses_at_once_what_cannot_be_met_and_says_when_to_retry() -> None:
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    with pytest.raises(DeadlineUnattainable) as caught:
        scheduler.submit(make(0.0, key=KEYS[1], within=0.05), 0.0)
    assert caught.value.retry_after is not None
    with pytest.raises(DeadlineExceeded):
        scheduler.submit(make(0.0, within=-0.001), 0.0)
    assert not scheduler.queues


def test_a_full_queue_refuses_with_a_time_to_retry() -> None:
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    for _ in range(LIMITS.max_queue):
        scheduler.submit(make(0.0), 0.0)
    with pytest.raises(Unavailable) as caught:
        scheduler.submit(make(0.0), 0.0)
    assert caught.value.code == "QUEUE_FULL"


def test_urgent_work_goes_first_and_takes_compatible_company() -> None:
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    lazy = [make(0.0, within=5.0) for _ in range(3)]
    urgent = make(0.0, priority=0)
    other = make(0.0, group="other shape", within=4.0)
    for item in [*lazy, other, urgent]:
        scheduler.submit(item, 0.0)
    batch = scheduler.pull("cpu", 0.0)
    assert batch is not None
    assert batch.items[0] is urgent
    assert other not in batch.items
    assert set(batch.items) == {urgent, *lazy}


def test_a_batch_stops_growing_before_it_would_miss_its_tightest_deadline() -> None:
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    tight = make(0.0, within=0.022)  # room for three rows, not for more
    scheduler.submit(tight, 0.0)
    for _ in range(7):
        scheduler.submit(make(0.0, within=9.0), 0.0)
    batch = scheduler.pull("cpu", 0.0)
    assert batch is not None
    assert batch.items[0] is tight
    assert batch.rows == 3


def test_idle_sibling_lanes_share_what_waits() -> None:
    scheduler = Scheduler(LIMITS, [device(lanes=2)], overhead=0.0)
    for _ in range(8):
        scheduler.submit(make(0.0), 0.0)
    first, second = scheduler.pull("cpu", 0.0), scheduler.pull("cpu", 0.0)
    assert first is not None
    assert second is not None
    assert (first.rows, second.rows) == (4, 4)


def test_only_the_device_that_can_make_it_takes_a_tight_request() -> None:
    scheduler = Scheduler(LIMITS, [device("slow"), device("fast", speed=4.0)], overhead=0.0)
    item = make(0.0, key=KEYS[1], within=0.05)
    scheduler.submit(item, 0.0)
    assert scheduler.pull("slow", 0.0) is None
    batch = scheduler.pull("fast", 0.0)
    assert batch is not None
    assert batch.items == [item]


def test_a_shared_item_is_as_urgent_as_its_most_urgent_caller_and_as_patient_as_its_most_patient() -> None:
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    first = make(0.0, within=1.0)
    shared = make(0.0, within=2.0)
    scheduler.submit(first, 0.0)
    scheduler.submit(shared, 0.0)
    scheduler.share(shared, 1, 0.5)
    assert next(iter(scheduler.queues[KEYS[0]])) is shared
    assert shared.deadline == 2.0


def test_an_unhealthy_device_gets_nothing_and_takes_nothing() -> None:
    state = device()
    scheduler = Scheduler(LIMITS, [state], overhead=0.0)
    scheduler.submit(make(0.0), 0.0)
    state.healthy = False
    assert scheduler.pull("cpu", 0.0) is None
    with pytest.raises(Unavailable) as caught:
        scheduler.submit(make(0.0), 0.0)
    assert caught.value.code == "NO_DEVICE"


def test_a_batch_that_ends_after_its_version_was_forgotten_does_not_bring_it_back() -> None:
    cpu = device()
    scheduler = Scheduler(LIMITS, [cpu], overhead=0.0)
    scheduler.submit(make(0.0), 0.0)
    batch = scheduler.pull("cpu", 0.0)
    assert batch is not None
    del cpu.latency[KEYS[0]]
    scheduler.finish(batch, 0.01, 0.01)
    assert KEYS[0] not in cpu.latency
    assert cpu.free_lanes == 1


def test_what_a_request_of_many_steps_takes_counts_the_turns_of_all_that_are_there() -> None:
    """Four of ten steps each fill a batch of two; a fifth of five waits through five rounds of theirs."""
    scheduler = Scheduler(LIMITS, [device()], overhead=0.0)
    profile = scheduler.devices["cpu"].latency
    profile[KEYS[0]] = LatencyModel({1: 1.0, 2: 1.0})

    def many(steps: int, within: float = math.inf) -> Item:
        item = make(0.0, within=within, steps=steps)
        item.max_rows = 2
        return item

    alone = many(5, within=5.5)
    scheduler.submit(alone, 0.0)
    scheduler.cancel(alone)
    for _ in range(4):
        scheduler.submit(many(10), 0.0)
    with pytest.raises(DeadlineUnattainable):
        scheduler.submit(many(5, within=12.0), 0.0)
    scheduler.submit(many(5, within=13.0), 0.0)  # 25 steps, two at a time
