"""Outlier ejection, in simulated time: who is left alone, for how long, and never too many."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.gateway.scheduler import DeviceState, Item, LatencyModel, Scheduler
from nonet.gateway.scheduler.ejection import FIRST, Ejection
from nonet.gateway.settings.scheduler_settings import SchedulerSettings

KEY = ("model", "1")


def replicas(count: int) -> dict[str, DeviceState]:
    made = [DeviceState(f"d{number}", 2, lambda key: True, group="replicas") for number in range(count)]
    for device in made:
        device.latency[KEY] = LatencyModel({1: 0.01, 8: 0.04})
    return {device.name: device for device in made}


def history(
    ejection: Ejection, name: str, ratio: float, times: int, now: float, *, failed: bool = False
) -> None:
    for _ in range(times):
        ejection.observe(name, None if failed else ratio, failed, now)


@pytest.fixture
def ejection() -> Ejection:
    ejection = Ejection(replicas(3), enabled=True)
    for name in ("d1", "d2"):
        history(ejection, name, 1.0, 20, 0.0)
    return ejection


@pytest.mark.parametrize("failed", [False, True], ids=["slow", "failing"])
def test_what_stands_out_is_left_alone_and_comes_back(ejection: Ejection, failed: bool) -> None:
    history(ejection, "d0", 8.0, 20, 100.0, failed=failed)
    assert ejection.resting(100.1) == {"d0": 1, "d1": 0, "d2": 0}
    assert ejection.rests("d0", 100.0 + FIRST - 0.1)
    assert not ejection.rests("d0", 100.0 + FIRST)
    ejection.observe("d0", 1.0, False, 100.5 + FIRST)
    assert not ejection.rests("d0", 101.0 + FIRST)
    assert ejection.ejections["d0"] == 1


def test_a_probe_that_fails_costs_twice_as_long(ejection: Ejection) -> None:
    history(ejection, "d0", 8.0, 20, 100.0)
    now = 100.0
    for seconds in (FIRST, 2 * FIRST, 4 * FIRST):
        assert ejection.rests("d0", now + seconds - 0.1)
        now += seconds
        assert not ejection.rests("d0", now)
        ejection.observe("d0", None, True, now)
    assert ejection.ejections["d0"] == 4


def test_a_stall_is_no_outlier_and_neither_is_what_slows_all(ejection: Ejection) -> None:
    history(ejection, "d0", 1.0, 20, 0.0)
    ejection.observe("d0", 50.0, False, 1.0)
    assert not ejection.rests("d0", 1.0)
    for _ in range(30):
        for name in ("d0", "d1", "d2"):
            ejection.observe(name, 6.0, False, 2.0)
    assert sum(ejection.resting(2.0).values()) <= 1


def test_one_device_and_a_switched_off_rule_eject_nobody() -> None:
    for ejection in (Ejection(replicas(1), enabled=True), Ejection(replicas(3), enabled=False)):
        for name in list(ejection.ejections):
            history(ejection, name, 9.0 if name == "d0" else 1.0, 50, 1.0)
        assert not any(ejection.resting(1.0).values())


@given(
    st.integers(2, 6),
    st.lists(
        st.tuples(st.integers(0, 5), st.floats(0.1, 30.0), st.booleans(), st.floats(0.0, 3.0)), max_size=300
    ),
)
@settings(max_examples=60, deadline=None)
def test_never_more_than_half_are_ejected(count: int, events: list[tuple[int, float, bool, float]]) -> None:
    ejection, now = Ejection(replicas(count), enabled=True), 0.0
    for number, ratio, failed, pause in events:
        now += pause
        ejection.observe(f"d{number % count}", None if failed else ratio, failed, now)
        assert sum(ejection.resting(now).values()) <= count // 2


def test_an_ejected_device_gets_nothing_but_what_no_other_can_run() -> None:
    only = ("only", "1")
    devices = replicas(2)
    devices["d1"].serves = lambda key: key == KEY
    devices["d0"].latency[only] = LatencyModel({1: 0.01})
    scheduler = Scheduler(SchedulerSettings(), devices.values(), overhead=0.0)
    history(scheduler.ejection, "d1", 1.0, 20, 0.0)
    history(scheduler.ejection, "d0", 9.0, 20, 0.0)
    for key in (KEY, only):
        scheduler.submit(Item(key, 1, "same", 10.0, 1, 1.0, max_rows=8), 1.0)
    batch = scheduler.pull("d0", 1.0)
    assert batch is not None
    assert batch.key == only
    assert scheduler.pull("d0", 1.0) is None
    taken = scheduler.pull("d1", 1.0)
    assert taken is not None
    assert taken.key == KEY


def test_what_was_given_up_teaches_that_it_takes_longer() -> None:
    devices = replicas(2)
    scheduler = Scheduler(SchedulerSettings(), devices.values(), overhead=0.0)
    history(scheduler.ejection, "d1", 1.0, 20, 0.0)
    for number in range(20):
        now = float(number)
        scheduler.submit(Item(KEY, 1, "same", now + 10.0, 1, now, max_rows=8), now)
        batch = scheduler.pull("d0", now)
        if batch is None:
            break
        before = devices["d0"].model(KEY).predict(1.0, now)
        scheduler.finish(batch, now, 0.001, at_least=True)  # given up early: nothing is known
        assert devices["d0"].model(KEY).predict(1.0, now) == before
        devices["d0"].running.append(batch)
        scheduler.finish(batch, now, 0.2, at_least=True)
        assert devices["d0"].model(KEY).predict(1.0, now) > before
    assert scheduler.ejection.rests("d0", now)


def test_when_the_others_die_an_ejected_device_serves_again() -> None:
    devices = replicas(2)
    scheduler = Scheduler(SchedulerSettings(), devices.values(), overhead=0.0)
    history(scheduler.ejection, "d1", 1.0, 20, 0.0)
    history(scheduler.ejection, "d0", 9.0, 20, 0.0)
    assert [device.name for device in scheduler.able(KEY, 1.0)] == ["d1"]
    devices["d1"].healthy = False
    scheduler.submit(Item(KEY, 1, "same", 10.0, 1, 1.0, max_rows=8), 1.0)
    assert scheduler.pull("d0", 1.0) is not None
