"""Simulated time: callers beyond what a device can do, against the real scheduler."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator

from nonet.gateway.scheduler import Batch, Caller, DeviceState, Item, LatencyModel, Scheduler
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.errors import DeadlineUnattainable, Unavailable

KEY = ("model", "1")
ROW = 0.006
"""Seconds a row, which is also what a batch takes for each of its rows."""


@dataclasses.dataclass(slots=True)
class Asker:
    """One of the callers' requests."""

    at: float
    caller: Caller
    within: float
    returned: bool = False


@dataclasses.dataclass(slots=True)
class Fate:
    """What became of it: None where that did not happen."""

    asker: Asker
    retry_after: float | None = None
    in_time: bool | None = None

    @property
    def let_in(self) -> bool:
        return self.retry_after is None


def poisson(
    rate: float, seconds: float, seed: int, *, tenant: str = "", within: float = 0.2
) -> Iterator[Asker]:
    """Requests at ``rate`` a second, each under an id of its own."""
    generator = random.Random(seed)
    at = generator.expovariate(rate)
    for number in itertools.count():
        if at >= seconds:
            return
        yield Asker(at, Caller(tenant, f"{tenant}-{seed}-{number}"), within)
        at += generator.expovariate(rate)


def scheduler() -> Scheduler:
    """One device with one lane whose profile is true on average."""
    device = DeviceState("cpu", 1, lambda key: True)
    device.latency[KEY] = LatencyModel({1: ROW, 8: 8 * ROW})
    return Scheduler(SchedulerSettings(), [device])


def simulate(
    scheduler: Scheduler,
    askers: list[Asker],
    *,
    noise: Callable[[], float] = lambda: 1.0,
    come_back: bool = False,
) -> list[Fate]:
    """Every asker's fate. ``noise`` is actual over predicted seconds of a batch; with ``come_back`` who is
    refused asks again, once, after the seconds it was told."""
    order = itertools.count()
    pending = [(asker.at, next(order), asker) for asker in askers]
    heapq.heapify(pending)
    fates: list[Fate] = []
    running: tuple[float, Batch] | None = None
    while pending or running is not None or scheduler.queues:
        end = running[0] if running is not None else math.inf
        if pending and pending[0][0] <= end:
            now, _, asker = heapq.heappop(pending)
            fates.append(fate := Fate(asker))
            item = Item(KEY, 1, "same", now + asker.within, 1, now, max_rows=8, caller=asker.caller)
            item.payload = fate
            try:
                scheduler.submit(item, now)
            except (DeadlineUnattainable, Unavailable) as error:
                fate.retry_after = error.retry_after or 1.0
                if come_back and not asker.returned:
                    again = Asker(now + fate.retry_after, asker.caller, asker.within, returned=True)
                    heapq.heappush(pending, (again.at, next(order), again))
        else:
            assert running is not None
            now, batch = running
            running = None
            scheduler.finish(batch, now, now - batch.started)
            for item in batch.items:
                item.payload.in_time = now <= item.deadline
        for item in scheduler.expire(now):
            item.payload.in_time = False
        if running is None and (pulled := scheduler.pull("cpu", now)) is not None:
            running = (now + ROW * pulled.rows * noise(), pulled)
    return fates
