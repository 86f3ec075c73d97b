"""``model: auto`` under load, in simulated time: down the family's ladder while it lasts, and back up."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from nonet.gateway.core.routing import Router
from nonet.gateway.scheduler import Batch, DeviceState, Item, LatencyModel, Scheduler
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ServingError
from nonet.runtime.servable import ModelInfo
from tests.support.misbehaving_servables import DoublingServable, doubling_info

SECONDS = {"large": 0.1, "medium": 0.03, "small": 0.005}
"""Of a row, the best member first; two lanes compute."""
WITHIN = 0.5


def phase(start: float, seconds: float, rate: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    found, at = [], start + generator.expovariate(rate)
    while at < start + seconds:
        found.append(at)
        at += generator.expovariate(rate)
    return found


def answers(times: Sequence[float], model: str) -> list[tuple[float, str]]:
    """For each request, when it came and which member answered in time, "" if none did."""
    catalog = Catalog()
    for quality, name in enumerate(reversed(SECONDS)):
        info = doubling_info(
            name, task="t", family="f", network=f"net-{name}", quality={"top1": quality / 10}
        )
        catalog.publish(DoublingServable(info))
    device = DeviceState("cpu", 2, lambda key: True)
    for name, seconds in SECONDS.items():
        device.latency[name, "1"] = LatencyModel({1: seconds, 8: 8 * seconds})
    scheduler = Scheduler(SchedulerSettings(), [device], overhead=0.0)
    now = 0.0

    def answered_at(info: ModelInfo, priority: int, deadline: float) -> float:
        return scheduler.estimate((info.name, info.version), 1.0, priority, deadline, now)

    def crowded(info: ModelInfo, priority: int, deadline: float) -> bool:
        wait = scheduler.wait((info.name, info.version), priority, deadline, now)
        return wait > 0.5 * (deadline - now)

    router = Router(catalog, answered_at, (), crowded=crowded)
    order = itertools.count()
    events: list[tuple[float, int, Batch | None]] = [(at, next(order), None) for at in times]
    heapq.heapify(events)
    found: list[tuple[float, str]] = []
    while events:
        now, _, batch = heapq.heappop(events)
        if batch is None:
            info = router.choose("t", model, deadline=now + WITHIN)
            item = Item((info.name, info.version), 1, "same", now + WITHIN, 1, now, max_rows=8)
            try:
                scheduler.submit(item, now)
            except ServingError:
                found.append((now, ""))
        else:
            scheduler.finish(batch, now, now - batch.started)
            found += [(item.arrival, batch.key[0] if now <= item.deadline else "") for item in batch.items]
        found += [(item.arrival, "") for item in scheduler.expire(now)]
        while (pulled := scheduler.pull("cpu", now)) is not None:
            heapq.heappush(events, (now + SECONDS[pulled.key[0]] * pulled.rows, next(order), pulled))
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_a_family_goes_down_its_ladder_under_load_and_comes_back(seed: int) -> None:
    times = [*phase(0, 20, 3, seed), *phase(20, 20, 100, seed + 100), *phase(40, 20, 3, seed + 200)]
    found = answers(times, "auto")
    before, during, after = (
        Counter(name for at, name in found if start <= at < end)
        for start, end in ((0, 20), (20.5, 40), (41, 60))
    )
    assert len(found) == len(times)
    assert set(before) == set(after) == {"large"}
    assert during["large"] < 0.3 * during.total()
    assert during["medium"] + during["small"] > 0.6 * during.total()
    assert during[""] < 0.08 * during.total()
    fixed = Counter(name for at, name in answers(times, "net-large") if 20.5 <= at < 40)
    assert fixed[""] > 0.6 * fixed.total(), "the large one alone is far too slow for that load"
