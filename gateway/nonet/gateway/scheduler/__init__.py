"""Batching and hardware choice as one decision: pure logic on a clock that is handed in."""

from nonet.gateway.scheduler.latency import LatencyModel
from nonet.gateway.scheduler.policy import SchedulerPolicy
from nonet.gateway.scheduler.queue import Item, ItemState, ModelQueue, QueueKey
from nonet.gateway.scheduler.scheduler import Batch, DeviceState, Scheduler

__all__ = [
    "Batch",
    "DeviceState",
    "Item",
    "ItemState",
    "LatencyModel",
    "ModelQueue",
    "QueueKey",
    "Scheduler",
    "SchedulerPolicy",
]
