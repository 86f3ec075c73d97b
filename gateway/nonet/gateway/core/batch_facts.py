"""What the dispatcher tells the observers: executions, requests that wait, steps that were taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nonet.gateway.core.records import BatchRecord, Observer
from nonet.gateway.executor.contract import BackendCrashed, Hung
from nonet.gateway.scheduler import Batch, QueueKey, Scheduler
from nonet.runtime.errors import ClientClosed, DeadlineExceeded, Internal, ServingError
from nonet.runtime.requests import Outcome

Result = list[Outcome] | BaseException
"""What became of an execution: an outcome for each request, or what failed all of them."""


class BatchFacts:
    """See the module's text. Of one dispatcher.

    Attributes:
        stepping: requests of each version that have taken a step and are not at their end.

    Args:
        scheduler: whose queues and devices they are of.
        observers: who is told; the list is the owner's and may grow.
    """

    def __init__(self, scheduler: Scheduler, observers: Sequence[Observer]) -> None:
        self.stepping: Counter[QueueKey] = Counter()
        self._scheduler = scheduler
        self._observers = observers

    def executed(self, batch: Batch, seconds: float, result: Result) -> None:
        """A batch has ended."""
        device = self._scheduler.devices[batch.device]
        record = BatchRecord(
            *batch.key,
            batch.device,
            len(batch.items),
            batch.rows,
            seconds,
            failed=isinstance(result, BaseException),
            hung=isinstance(result, Hung),
            joules=device.rates.joules(seconds, device.lanes),
            cost=device.rates.cost(seconds, device.lanes),
        )
        for observer in self._observers:
            observer.on_batch(record)

    def steps_changed(self, key: QueueKey, taken: int) -> None:
        """So many steps were taken, or the number of those that are at it has changed."""
        requests = self.stepping[key]
        if not requests:
            del self.stepping[key]
        for observer in self._observers:
            observer.on_steps(*key, taken=taken, requests=requests)

    def depth_changed(self, key: QueueKey) -> None:
        """A queue has become longer or shorter."""
        queue = self._scheduler.queues.get(key)
        depth = len(queue) if queue is not None else 0
        for observer in self._observers:
            observer.on_queue_depth(*key, depth)


def cut_short(result: Result) -> bool:
    """Whether an execution was given up before its end: it would have taken longer."""
    if isinstance(result, BaseException):
        return isinstance(result, ClientClosed | DeadlineExceeded)
    return any(isinstance(each, DeadlineExceeded) for each in result)


def broken(result: Result) -> bool:
    """Whether an execution failed as one fails whose device is not well."""
    if isinstance(result, BaseException):
        return isinstance(result, BackendCrashed | Internal) or not isinstance(result, ServingError)
    return any(isinstance(each, BackendCrashed | Internal) for each in result)
