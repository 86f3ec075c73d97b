"""How long a request of many executions takes that shares its device with others, step by step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from nonet.gateway.scheduler.devices import DeviceState
from nonet.gateway.scheduler.queue import ModelQueue, QueueKey


def seconds_in_turns(
    able: Sequence[DeviceState],
    queues: Mapping[QueueKey, ModelQueue],
    key: QueueKey,
    cost: float,
    left: float,
    priority: int,
    now: float,
) -> float:
    """Seconds until an item of ``left`` executions of ``cost`` has had them all, in turns with what is there.

    Of every other item, waiting or running, as many executions come before its last as it has itself, or all
    that the other has left (processor sharing). Work is done in the largest batches that what is there can
    fill, at what such a batch takes; the devices in ``able`` count as parallel servers.
    """
    rate = 0.0
    for device in able:
        items = [
            item
            for found, queue in queues.items()
            if device.can_run(found)
            for item in queue
            if item.priority <= priority
        ]
        items += [item for batch in device.running for item in batch.items]
        rows: Counter[QueueKey] = Counter({key: math.ceil(cost)})
        most: dict[QueueKey, int] = {}
        work = {key: left * cost}
        for item in items:
            rows[item.key] += item.rows
            most[item.key] = item.max_rows
            work[item.key] = work.get(item.key, 0.0) + min(item.left, left) * item.cost
        seconds = 0.0
        for found, amount in work.items():
            together = float(min(rows[found], most.get(found, rows[found])))
            seconds += amount * device.model(found).predict(together, now) / together
        rate += device.lanes / max(seconds, 1e-9)
    return 1.0 / rate if rate else math.inf
