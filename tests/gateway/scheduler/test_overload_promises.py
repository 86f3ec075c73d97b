"""Beyond capacity, in simulated time: what is let in is in time, the device is not idle, who comes back when
it was told to is let in, and one tenant's flood is not another's."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.gateway.scheduler import Caller, Item
from nonet.gateway.scheduler.expected import Expected
from nonet.gateway.scheduler.kept_places import KeptPlaces
from nonet.gateway.scheduler.punctuality import Punctuality
from nonet.runtime.errors import DeadlineUnattainable
from tests.support.overload_simulation import KEY, ROW, Asker, poisson, scheduler, simulate

CAPACITY = 1.0 / ROW


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.1, 0.3]))
def test_all_but_a_hundredth_stay_below_the_ratio_that_was_learnt(seed: int, spread: float) -> None:
    generator = random.Random(seed)
    punctuality = Punctuality()
    late = 0
    for number in range(9000):
        ratio = generator.lognormvariate(0.0, spread)
        late += number >= 1000 and ratio > punctuality.ratio(0.1, number / 100)
        punctuality.observe(0.1, 0.1 * ratio, number / 100)
    assert late <= 80
    assert 1.0 < punctuality.ratio(0.1, 90.0) <= math.exp(4.5 * spread)


def test_what_was_learnt_of_lateness_fades() -> None:
    punctuality = Punctuality()
    for _ in range(20):
        punctuality.observe(0.1, math.inf, 0.0)
    assert punctuality.ratio(0.1, 0.0) > 2.0
    assert punctuality.ratio(0.1, 600.0) < 1.01


@pytest.mark.parametrize("load", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("within", [0.2, 1.0])
def test_beyond_capacity_what_is_let_in_is_in_time_and_the_device_is_busy(load: float, within: float) -> None:
    generator = random.Random(3)
    askers = list(poisson(load * CAPACITY, 12.0, seed=4, within=within))
    fates = simulate(scheduler(), askers, noise=lambda: generator.lognormvariate(0.0, 0.25))
    learnt = [fate for fate in fates if fate.let_in and fate.asker.at > 4.0]
    good = sum(bool(fate.in_time) for fate in learnt)
    assert good / len(learnt) >= 0.99
    assert good / 8.0 >= 0.9 * CAPACITY


def test_below_capacity_nearly_nobody_is_refused() -> None:
    fates = simulate(scheduler(), list(poisson(0.7 * CAPACITY, 20.0, seed=5)))
    assert sum(fate.let_in for fate in fates) >= 0.99 * len(fates)


@pytest.mark.parametrize("load", [1.5, 2.0])
def test_who_waits_as_long_as_it_was_told_is_let_in(load: float) -> None:
    generator = random.Random(6)
    askers = list(poisson(load * CAPACITY, 12.0, seed=7))
    fates = simulate(scheduler(), askers, noise=lambda: generator.lognormvariate(0.0, 0.1), come_back=True)
    back = [fate for fate in fates if fate.asker.returned and fate.asker.at < 12.0]
    assert len(back) > 500
    assert sum(bool(fate.in_time) for fate in back) >= 0.95 * len(back)


def test_a_place_is_for_its_second_and_used_once() -> None:
    places = KeptPlaces()
    waits = [places.promise(f"caller-{number}", 0.3, 40.0, 100.55) for number in range(6)]
    assert waits == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert places.promise("of the next tenth", 0.3, 40.0, 100.65) == 1.0
    assert places.due(101.55)
    assert not places.holds("caller-0", 101.4)
    assert places.holds("caller-0", 101.55)
    assert places.holds("caller-0", 103.5)
    assert not places.holds("caller-0", 103.6)
    assert not places.holds("nobody", 101.55)
    places.take("caller-0")
    assert not places.holds("caller-0", 101.55)
    assert places.promise("in its place", 0.3, 40.0, 100.55) == 1.0
    places.promise("late", 0.3, 40.0, 200.0)
    assert not places.holds("caller-5", 103.55)  # forgotten, not kept for ever


def test_an_innocent_tenant_is_served_while_another_floods() -> None:
    generator = random.Random(8)
    flood = list(poisson(8.0 * CAPACITY, 10.0, seed=9, tenant="flood"))
    innocent = list(poisson(0.2 * CAPACITY, 10.0, seed=10, tenant="innocent"))
    fates = simulate(scheduler(), flood + innocent, noise=lambda: generator.lognormvariate(0.0, 0.1))
    theirs = [fate for fate in fates if fate.asker.caller.tenant == "innocent" and fate.asker.at > 2.0]
    assert sum(bool(fate.in_time) for fate in theirs) >= 0.99 * len(theirs)
    good = sum(bool(fate.in_time) for fate in fates)
    assert good / 10.0 >= 0.9 * CAPACITY


def test_patient_work_of_one_tenant_is_not_starved_by_the_hurried_of_another() -> None:
    flood = list(poisson(2.0 * CAPACITY, 12.0, seed=11, tenant="flood"))
    patient = [Asker(0.5 + 0.01 * number, Caller("patient", f"p{number}"), 20.0) for number in range(200)]
    fates = simulate(scheduler(), flood + patient)
    theirs = [fate for fate in fates if fate.asker.caller.tenant == "patient"]
    assert all(fate.in_time for fate in theirs)


def test_a_flood_without_deadlines_leaves_room_in_the_queue() -> None:
    full = scheduler()
    refused = 0
    for number in range(2000):
        item = Item(KEY, 1, "same", math.inf, 1, 0.0, max_rows=8, caller=Caller("flood", str(number)))
        try:
            full.submit(item, 0.0)
        except Exception as error:
            assert getattr(error, "code", "") == "QUEUE_FULL"
            refused += 1
    assert refused
    full.submit(Item(KEY, 1, "same", math.inf, 1, 0.0, max_rows=8, caller=Caller("other", "x")), 0.0)


def test_what_was_let_in_counts_before_it_is_queued_but_not_for_long() -> None:
    crowded = scheduler()
    seats = [crowded.expected.seat(KEY, 1, 0.0) for _ in range(40)]
    with pytest.raises(DeadlineUnattainable):
        crowded.check(KEY, 1, 0.2, 0.0)
    crowded.check(KEY, 0, 0.2, 0.0)  # what is more urgent does not wait for them
    seats[0].leave()
    seats[0].leave()
    assert crowded.expected.counts(1, 0.0) == {KEY: 39}
    crowded.check(KEY, 1, 0.4, 0.2)  # bodies that do not come keep nobody out
    assert crowded.expected.counts(1, 0.2) == {}


def test_a_seat_that_is_left_after_it_has_lapsed_counts_once() -> None:
    expected = Expected()
    seat = expected.seat(KEY, 1, 0.0)
    assert expected.counts(1, 1.0) == {}
    seat.leave()
    assert expected.counts(1, 1.0) == {}


def test_an_idle_device_refuses_nothing_for_what_was_late_before() -> None:
    calm = scheduler()
    for _ in range(60):
        late = Item(KEY, 1, "same", 10.0, 1, 0.0, max_rows=8, predicted=ROW)
        calm._promises.ended(late, 0.0, answered=False)
    assert calm._promises.seconds(KEY, ROW, 0.0) > 3.0 * ROW
    calm.check(KEY, 1, 2.0 * ROW, 0.0)
