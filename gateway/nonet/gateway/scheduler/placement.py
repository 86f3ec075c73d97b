"""Which waiting items a device leaves to a cheaper one: placement by price or by energy.

Algorithm. Under the policy *fastest* no device leaves anything. Under *cheapest* (price) and *greenest*
(energy) the waiting items are gone through in the order of their urgency, and each is given, in thought, to
the device that is predicted to finish it in time at the least cost: behind what that device runs and what was
given to it before, in batches, with the safety factor. A device leaves what was so given to one that computes
it for less than itself, and takes the rest. What a cheaper device turns out to be too slow for is no longer
given to it at the next look, so the dearer one takes it while it still can.

Guarantees (tested in simulated time): where the cheapest device alone can do all in time, none of it costs
more than there. Against *fastest*, at most two requests in a hundred more miss their deadline.

Limits: costs are those of the devices' busy time as declared (:mod:`.rates`); one without a rate costs
nothing. A batch that is later than predicted is taken to need as long again.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Mapping
from typing import Literal

from nonet.gateway.scheduler.devices import DeviceState
from nonet.gateway.scheduler.queue import Item, ModelQueue, QueueKey

Policy = Literal["fastest", "cheapest", "greenest"]

_LOOKS = 0.02
"""Seconds between two looks at what waits, which an item that is left may lose."""

_rank = operator.attrgetter("rank")


class Placement:
    """See the module's text.

    Args:
        policy: what is sought among the devices that are in time.
        safety: predicted seconds are multiplied by it.
    """

    def __init__(self, policy: Policy, safety: float) -> None:
        self._policy = policy
        self._safety = safety

    def leaves(
        self,
        device: DeviceState,
        devices: Iterable[DeviceState],
        queues: Mapping[QueueKey, ModelQueue],
        now: float,
    ) -> set[Item]:
        """The waiting items that ``device`` leaves to others."""
        left: set[Item] = set()
        if self._policy == "fastest":
            return left
        others = [_Plan(each, now) for each in devices if each is not device and each.healthy]
        if not others or not self._cost(device, 1.0):
            return left
        for item in heapq.merge(*queues.values(), key=_rank):
            own = float("inf")
            if device.serves(item.key):
                own = self._cost(device, device.model(item.key).usual(item.cost, now))
            best: tuple[float, float, _Plan] | None = None
            for plan in others:
                if not plan.device.serves(item.key):
                    continue
                seconds = plan.device.model(item.key).usual(item.cost, now)
                cost = self._cost(plan.device, seconds)
                end = now + plan.ends(item, now, self._safety) + _LOOKS
                if cost < own and end <= item.deadline and (best is None or cost < best[0]):
                    best = (cost, end, plan)
            if best is not None:
                best[2].give(item, now)
                if device.serves(item.key):
                    left.add(item)
        return left

    def _cost(self, device: DeviceState, seconds: float) -> float:
        rate = device.rates.cost if self._policy == "cheapest" else device.rates.joules
        return rate(seconds, device.lanes)


class _Plan:
    """What a device would do after what it runs now, from ``now`` on."""

    __slots__ = ("_batches", "_free", "_work", "device")

    def __init__(self, device: DeviceState, now: float) -> None:
        self.device = device
        ends = sorted(_remaining(batch.started, batch.predicted, now) for batch in device.running)
        self._free = ends[0] if device.free_lanes < 1 else 0.0
        self._work = sum(ends)
        self._batches: dict[QueueKey, tuple[int, float]] = {}

    def ends(self, item: Item, now: float, safety: float) -> float:
        """Seconds from ``now`` until it would have done an item, of all its executions."""
        model = self.device.model(item.key)
        first = max(self._free, (self._work if self._batches else 0.0) / self.device.lanes)
        _, cost = self._joined(item)
        each = model.usual(cost, now)
        alone = model.usual(item.cost, now)
        return (first + each + (item.left - 1.0) * alone) * safety

    def give(self, item: Item, now: float) -> None:
        """It will do the item."""
        model = self.device.model(item.key)
        rows, cost = self._joined(item)
        joined = cost > item.cost
        before = model.usual(cost - item.cost, now) if joined else 0.0
        more = (item.left - 1.0) * model.usual(item.cost, now)
        self._work += model.usual(cost, now) - before + more
        self._batches[item.key] = (rows, cost)

    def _joined(self, item: Item) -> tuple[int, float]:
        """Rows and cost of the batch that the item would be in."""
        rows, cost = self._batches.get(item.key, (0, 0.0))
        if rows + item.rows > item.max_rows:
            return item.rows, item.cost
        return rows + item.rows, cost + item.cost


def _remaining(started: float, predicted: float, now: float) -> float:
    left = started + predicted - now
    return left if left > 0.0 else now - started
