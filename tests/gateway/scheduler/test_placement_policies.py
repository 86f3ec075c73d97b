"""Placement by price and by energy, in simulated time: what it saves, and what it may cost in deadlines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.gateway.scheduler.placement import Policy
from tests.support.placement_simulation import Machine, arrivals, simulate

EDGE = Machine("edge", 0.08, 0.06, lanes=2, price=0.1, watts=10.0)
GPU = Machine("gpu", 0.01, 0.002, lanes=1, price=3.0, watts=300.0)

loads = st.tuples(st.floats(2.0, 250.0), st.integers(0, 10_000), st.floats(0.05, 2.0), st.floats(0.05, 2.0))


def two_kinds(first: float, second: float) -> Callable[[int], float]:
    return lambda number: first if number % 2 else second


def test_a_light_load_is_all_done_by_the_cheap_device() -> None:
    times = arrivals(3.0, 200, 1)
    cheapest = simulate([EDGE, GPU], "cheapest", times, lambda _: 2.0)
    assert (cheapest.met, cheapest.rows["gpu"]) == (200, 0)
    assert cheapest.price == pytest.approx(200 * 0.08 * 0.1 / 3600 / 2, rel=0.05)


def test_what_the_cheap_device_is_too_slow_for_goes_to_the_dear_one() -> None:
    times = arrivals(3.0, 200, 1)
    outcome = simulate([EDGE, GPU], "cheapest", times, two_kinds(0.06, 2.0))
    assert outcome.met == 200
    assert outcome.rows["gpu"] >= 100
    assert outcome.rows["edge"] >= 90


def test_the_greenest_is_another_one_than_the_cheapest() -> None:
    thirsty = Machine("old", 0.05, 0.04, price=0.01, watts=900.0)
    times = arrivals(3.0, 100, 2)
    cheapest = simulate([thirsty, GPU], "cheapest", times, lambda _: 2.0)
    greenest = simulate([thirsty, GPU], "greenest", times, lambda _: 2.0)
    assert cheapest.rows["gpu"] == 0 == greenest.rows["old"]
    assert greenest.joules < cheapest.joules
    assert cheapest.price < greenest.price


def test_without_rates_every_policy_is_the_fastest() -> None:
    free = [Machine("a", 0.08, 0.06), Machine("b", 0.01, 0.002)]
    times = arrivals(30.0, 300, 3)
    policies: tuple[Policy, ...] = ("fastest", "cheapest", "greenest")
    outcomes = [simulate(free, policy, times, lambda _: 0.3) for policy in policies]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_cheap_device_that_stalls_is_left_to_itself() -> None:
    times = arrivals(8.0, 400, 4)

    def stalls(name: str, now: float) -> float:
        return 20.0 if name == "edge" and 10.0 < now < 25.0 else 1.0

    outcome = simulate([EDGE, GPU], "cheapest", times, lambda _: 0.6, stalls)
    assert outcome.met >= 0.95 * 400
    assert outcome.rows["gpu"] > 50
    assert outcome.rows["edge"] > 100


@given(loads)
@settings(max_examples=12, deadline=None)
def test_cheap_placement_costs_two_deadlines_in_a_hundred_at_most(
    load: tuple[float, int, float, float],
) -> None:
    rate, seed, *within = load
    times = arrivals(rate, 300, seed)
    fastest = simulate([EDGE, GPU], "fastest", times, two_kinds(*within))
    cheapest = simulate([EDGE, GPU], "cheapest", times, two_kinds(*within))
    for outcome in (fastest, cheapest):
        assert outcome.met + outcome.missed + outcome.refused == 300
    lost = (cheapest.missed + cheapest.refused) - (fastest.missed + fastest.refused)
    assert lost <= 6


@given(st.floats(0.5, 6.0), st.integers(0, 10_000), st.floats(0.5, 3.0))
@settings(max_examples=10, deadline=None)
def test_under_a_light_load_it_never_costs_more(rate: float, seed: int, within: float) -> None:
    times = arrivals(rate, 150, seed)
    fastest = simulate([EDGE, GPU], "fastest", times, lambda _: within)
    cheapest = simulate([EDGE, GPU], "cheapest", times, lambda _: within)
    assert cheapest.met == fastest.met == 150
    assert cheapest.price <= fastest.price * 1.0001
