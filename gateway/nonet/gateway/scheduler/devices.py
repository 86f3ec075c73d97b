"""What the scheduler knows of a device, and a batch that one of its lanes runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from nonet.gateway.scheduler.latency import LatencyModel
from nonet.gateway.scheduler.queue import Item, QueueKey
from nonet.gateway.scheduler.rates import Rates

NO_RATES = Rates()


@dataclasses.dataclass(slots=True, eq=False)
class Batch:
    """Items taken together by one lane of one device; ``usual`` are its seconds by all that was learnt, be it
    long ago, 0.0 if nothing was."""

    key: QueueKey
    device: str
    items: list[Item]
    rows: int
    cost: float
    started: float
    predicted: float
    usual: float


class DeviceState:
    """What the scheduler knows of a device.

    Args:
        name: unique name, e.g. ``cpu`` or ``remote:<service>-<number>``.
        lanes: batches it runs at a time, >= 1.
        serves: whether it can run a model version now.
        rates: what it costs while it computes.
        group: devices of one group stand in for each other.
    """

    def __init__(
        self,
        name: str,
        lanes: int,
        serves: Callable[[QueueKey], bool],
        rates: Rates = NO_RATES,
        group: str = "",
    ) -> None:
        if lanes < 1:
            raise ValueError(f"device {name} needs at least one lane, got {lanes}")
        self.name = name
        self.lanes = lanes
        self.serves = serves
        self.rates = rates
        self.group = group or name
        self.healthy = True
        self.running: list[Batch] = []
        self.latency: dict[QueueKey, LatencyModel] = {}

    @property
    def free_lanes(self) -> int:
        return self.lanes - len(self.running)

    def model(self, key: QueueKey) -> LatencyModel:
        """The latency model of ``key`` here; made empty when first asked for."""
        found = self.latency.get(key)
        if found is None:
            found = self.latency[key] = LatencyModel()
        return found

    def begin(self, key: QueueKey, items: list[Item], now: float) -> Batch:
        """A free lane runs ``items`` from now on."""
        rows, cost = sum(item.rows for item in items), sum(item.cost for item in items)
        latency = self.model(key)
        predicted, usual = latency.predict(cost, now), latency.usual(cost, now)
        batch = Batch(key, self.name, items, rows, cost, now, predicted, usual)
        self.running.append(batch)
        return batch

    def can_run(self, key: QueueKey) -> bool:
        return self.healthy and self.serves(key)
