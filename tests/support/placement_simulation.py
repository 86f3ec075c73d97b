"""Simulated time: devices of different speed and price, and callers, against the real scheduler."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable, Sequence

from nonet.gateway.scheduler import Batch, DeviceState, Item, LatencyModel, Rates, Scheduler
from nonet.gateway.scheduler.placement import Policy
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.errors import ServingError

KEY = ("model", "1")
LOOKS = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """A device: seconds of a row alone and of each further one in its batch, and its declared rates."""

    name: str
    alone: float
    further: float
    lanes: int = 1
    price: float = 0.0
    watts: float = 0.0

    def state(self) -> DeviceState:
        device = DeviceState(
            self.name, self.lanes, lambda key: True, Rates(self.watts, self.price), "replicas"
        )
        device.latency[KEY] = LatencyModel({1: self.seconds(1), 8: self.seconds(8)})
        return device

    def seconds(self, rows: int) -> float:
        return self.alone + (rows - 1) * self.further


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of all requests: answered in time, late or given up, refused at the door; what the answers
    cost and took; and the rows of each device."""

    met: int = 0
    missed: int = 0
    refused: int = 0
    price: float = 0.0
    joules: float = 0.0
    rows: dict[str, int] = dataclasses.field(default_factory=dict)


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return list(itertools.accumulate(generator.expovariate(rate) for _ in range(count)))


def simulate(
    machines: Sequence[Machine],
    policy: Policy,
    times: Sequence[float],
    within: Callable[[int], float],
    slowed: Callable[[str, float], float] = lambda name, now: 1.0,
) -> Outcome:
    """Requests at ``times``, each due ``within(number)`` seconds. ``slowed`` is actual over usual seconds."""
    by_name = {machine.name: machine for machine in machines}
    scheduler = Scheduler(
        SchedulerSettings(placement=policy), [machine.state() for machine in machines], overhead=0.0
    )
    order = itertools.count()
    events: list[tuple[float, int, Item | Batch | None]] = []
    for number, at in enumerate(times):
        item = Item(KEY, 1, "same", at + within(number), 1, at, max_rows=8)
        heapq.heappush(events, (at, next(order), item))
    outcome = Outcome(rows=dict.fromkeys(by_name, 0))
    ticking = False
    while events:
        now, _, event = heapq.heappop(events)
        if isinstance(event, Item):
            try:
                scheduler.submit(event, now)
            except ServingError:
                outcome.refused += 1
        elif event is None:
            ticking = False
        else:
            machine, seconds = by_name[event.device], now - event.started
            scheduler.finish(event, now, seconds)
            late = sum(now > item.deadline for item in event.items)
            outcome.missed += late
            outcome.met += len(event.items) - late
            rates = Rates(machine.watts, machine.price)
            outcome.price += rates.cost(seconds, machine.lanes)
            outcome.joules += rates.joules(seconds, machine.lanes)
            outcome.rows[machine.name] += event.rows
        outcome.missed += len(scheduler.expire(now))
        for name, machine in by_name.items():
            while (batch := scheduler.pull(name, now)) is not None:
                seconds = machine.seconds(batch.rows) * slowed(name, now)
                heapq.heappush(events, (now + seconds, next(order), batch))
        if scheduler.queues and not ticking:
            ticking = True
            heapq.heappush(events, (now + LOOKS, next(order), None))
    return outcome
