"""When a request that arrives now would be answered, by what waits, what runs and what is on its way.

The devices that could run it count as parallel servers; the lanes of each as equal and independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nonet.gateway.scheduler.devices import DeviceState
from nonet.gateway.scheduler.expected import Expected
from nonet.gateway.scheduler.queue import ModelQueue, QueueKey
from nonet.gateway.scheduler.turns import seconds_in_turns


class Forecast:
    """See the module's text. Of one scheduler.

    Args:
        queues: what waits, by model version; the owner's.
        expected: what was let in and is not queued yet.
        safety: seconds of execution are multiplied by it.
    """

    def __init__(self, queues: Mapping[QueueKey, ModelQueue], expected: Expected, safety: float) -> None:
        self._queues = queues
        self._expected = expected
        self._safety = safety

    def answer(
        self,
        able: Sequence[DeviceState],
        key: QueueKey,
        cost: float,
        left: float,
        priority: int,
        deadline: float,
        now: float,
    ) -> float:
        """Seconds until a request of ``left`` executions of ``cost`` would be answered by the devices
        ``able`` to; infinite if there are none."""
        run = min([device.model(key).predict(cost, now) for device in able], default=math.inf) * left
        wait = self.wait(able, priority, deadline, now)
        if left > 1.0:
            run = max(run, seconds_in_turns(able, self._queues, key, cost, left, priority, now) - wait)
        return wait + run * self._safety

    def wait(self, able: Sequence[DeviceState], priority: int, deadline: float, now: float) -> float:
        """Seconds until a lane of the devices would turn to a request of this urgency: the work ahead of it,
        over all of them; infinite if there are none."""
        rank = (priority, deadline, math.inf)
        rate = 0.0
        for device in able:
            ahead = self._work_ahead(device, rank, now)
            busy = sum([max(batch.started + batch.predicted - now, 0.0) for batch in device.running])
            if device.free_lanes > 0 and ahead == 0.0:
                return 0.0
            if device.free_lanes == 0 and ahead == 0.0:
                # The next lane to end is the one that will take it.
                first = min(max(batch.started + batch.predicted - now, 0.0) for batch in device.running)
                pending = first * device.lanes
            else:
                pending = ahead + busy
            rate += device.lanes / max(pending, 1e-9)
        return 1.0 / rate if rate else math.inf

    def _work_ahead(self, device: DeviceState, rank: tuple[int, float, float], now: float) -> float:
        """Device-seconds of the items more urgent than ``rank`` that wait or are expected, and that this
        device would run."""
        total = 0.0
        for key, count in self._expected.counts(rank[0], now).items():
            if device.can_run(key):
                total += device.model(key).predict(float(count), now)
        for key, queue in self._queues.items():
            if not queue or not device.can_run(key):
                continue
            rows = queue.rows_ahead(rank)
            if rows:
                head = queue.head
                full = head.max_rows if head is not None else 1
                latency = device.model(key)
                batches, rest = divmod(rows, full)
                each = queue.cost / queue.rows
                if batches:
                    total += batches * latency.predict(full * each, now)
                if rest:
                    total += latency.predict(rest * each, now)
        return total
