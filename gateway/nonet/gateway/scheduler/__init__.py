"""The scheduler: which requests run as one batch, on which device and when; no I/O."""

from nonet.gateway.scheduler.devices import Batch, DeviceState
from nonet.gateway.scheduler.latency import LatencyModel
from nonet.gateway.scheduler.queue import NOBODY, Caller, Item, ItemState, ModelQueue, QueueKey
from nonet.gateway.scheduler.rates import Rates
from nonet.gateway.scheduler.scheduler import Scheduler

__all__ = [
    "NOBODY",
    "Batch",
    "Caller",
    "DeviceState",
    "Item",
    "ItemState",
    "LatencyModel",
    "ModelQueue",
    "QueueKey",
    "Rates",
    "Scheduler",
]
