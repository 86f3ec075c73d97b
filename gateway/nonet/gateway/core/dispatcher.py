"""Drives the scheduler on the event loop: hands batches to free lanes and answers to their callers.

Every :class:`Ticket` is resolved exactly once: by its batch, a refusal, or its callers leaving (each caller
keeps its own deadline and leaves when it passes). One whose execution was a step goes back into its queue, if
somebody still waits for it, and its partial answer to those who stream.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nonet.gateway.core.batch_facts import BatchFacts, Result, broken, cut_short
from nonet.gateway.core.executions import executions
from nonet.gateway.core.hedging import Hedging
from nonet.gateway.core.records import Observer
from nonet.gateway.core.second_chances import SecondChances
from nonet.gateway.core.ticket import Ticket, lost, model_failed
from nonet.gateway.executor.contract import BackendCrashed, BatchJob, Device
from nonet.gateway.scheduler import (
    Batch,
    Caller,
    DeviceState,
    Item,
    LatencyModel,
    QueueKey,
    Scheduler,
)
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.catalog import Lease
from nonet.runtime.clock import Clock
from nonet.runtime.errors import ClientClosed, DeadlineUnattainable, ServingError, Unavailable
from nonet.runtime.requests import Continued, InferRequest, InferResponse

logger = logging.getLogger(__name__)

_TICK = 0.02  # seconds between looks at the queues while something waits
_HUNG = 5.0  # times its predicted seconds, at least, before an execution counts as hung
_EXPIRE_EVERY = 0.01  # seconds between searches for waiting items that can no longer make it


class Dispatcher:
    """See the module's text.

    Args:
        devices: where batches may run.
        limits: of the scheduler.
        clock: the clock deadlines are on; must be the event loop's own when it serves.
        observers: told of every batch; the list is the owner's and may grow.
    """

    def __init__(
        self, devices: Sequence[Device], limits: SchedulerSettings, clock: Clock, observers: list[Observer]
    ) -> None:
        self.devices = {device.name: device for device in devices}
        self.scheduler = Scheduler(
            limits,
            [
                DeviceState(device.name, device.lanes, device.serves, device.rates, device.group)
                for device in devices
            ],
        )
        self._execution_limit = limits.execution_limit
        self.in_steps = any(device.steps for device in devices)
        self._clock = clock
        self._facts = BatchFacts(self.scheduler, observers)
        self._pump_due = False
        self._tick_due = False
        self._last_expire = -math.inf
        self._running: dict[Batch, tuple[list[Ticket], Callable[[], object]]] = {}
        self._chances = SecondChances(self.scheduler, self._servable, self._end, self._pump_soon)
        self.hedging = Hedging(self.scheduler, clock, self._launch, limits.hedging)
        for device in devices:
            device.on_health = self._health_changed

    async def start(self) -> None:
        """Start every device."""
        for device in self.devices.values():
            await device.start()
        self._health_changed()

    async def stop(self) -> None:
        """Stop every device; what still waits is refused."""
        for queue in list(self.scheduler.queues.values()):
            for item in list(queue):
                self._refuse(item, Unavailable("the server has shut down", code="SHUTTING_DOWN"))
        self._chances.refuse(lambda _: Unavailable("the server has shut down", code="SHUTTING_DOWN"))
        for device in self.devices.values():
            await device.stop()

    # -- the way in -----------------------------------------------------------------------------

    def submit(
        self,
        request: InferRequest,
        lease: Lease,
        rows: int,
        deadline: float,
        deliver: Callable[[InferResponse], bool],
        *,
        request_id: str = "",
    ) -> Ticket:
        """Queue a validated request. Takes over ``lease``, also when it raises. ``deliver`` is called with
        each partial answer and says whether anybody reads it; a ServingError from it fails the request.
        ``request_id``: under which it comes back if it is refused.

        Raises as :meth:`Scheduler.submit` does: a request that cannot be answered in time is refused here.
        """
        info = lease.info
        key = (info.name, info.version)
        now = self._clock.now()
        group = (
            info.digest,
            tuple(sorted((name, type(value).__name__, value) for name, value in request.parameters.items()))
            if request.parameters
            else (),
            tuple(
                (tensor.name, tensor.datatype, tensor.shape[1:] if info.max_batch_size else tensor.shape)
                for tensor in request.inputs
            ),
        )
        cost, left = executions(info, rows, request.cost, self.in_steps)
        largest = max(info.max_batch_size, 1)
        item = Item(key, rows, group, deadline, request.priority, now, largest, cost, left)
        item.caller = Caller(request.tenant, request_id)
        ticket = Ticket(request, lease, item, asyncio.get_running_loop().create_future(), deliver)
        item.payload = ticket
        try:
            self._chances.check(request, info, now)
            self.scheduler.submit(item, now)
        except BaseException:
            self._end(ticket)
            raise
        self._facts.depth_changed(key)
        self._pump_soon()
        return ticket

    def abandon(self, ticket: Ticket) -> bool:
        """The caller has left. True if the work had not begun (and now never will)."""
        waiting = self.scheduler.cancel(ticket.item)
        if waiting:
            self._facts.depth_changed(ticket.item.key)
            self._end(ticket)
        self._settle(ticket, None)
        if not waiting:
            self._abandon_if_nobody_waits(ticket)
        return waiting

    def share(self, ticket: Ticket, priority: int, deadline: float) -> None:
        """Another caller waits for the same ticket; see :meth:`Scheduler.share`."""
        self.scheduler.share(ticket.item, priority, deadline)

    def learn(self, device: str, key: QueueKey, profile: Mapping[int, float]) -> None:
        """Take a measured latency profile for a model on a device."""
        self.scheduler.devices[device].latency[key] = LatencyModel(profile)

    def forget(self, key: QueueKey) -> None:
        """A version left the catalog: drop its profile. What waits holds a lease and still runs."""
        self.scheduler.forget(key)
        self.hedging.forget(key)

    # -- the loop -------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        # Deferred to the end of this turn of the loop, so that requests that arrive together meet.
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        now = self._clock.now()
        if now - self._last_expire >= _EXPIRE_EVERY:
            self._last_expire = now
            for item in self.scheduler.expire(now):
                end = f"given up after {item.steps} steps" if item.steps else "dropped before any work"
                why = f"the deadline can no longer be met; the request was {end}"
                self._refuse(item, DeadlineUnattainable(why))
        open_devices = [state for state in self.scheduler.devices.values() if state.free_lanes > 0]
        while open_devices and self.scheduler.queues:
            # The least busy device is asked first, so that replicas share the load.
            state = min(open_devices, key=lambda state: len(state.running) / state.lanes)
            batch = self.scheduler.pull(state.name, now)
            if batch is not None:
                self._launch(batch)
            if batch is None or state.free_lanes == 0:
                open_devices.remove(state)
        if self.scheduler.queues and not self._tick_due:
            # What waits behind a hung lane must be dropped in time too.
            self._tick_due = True
            asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        self._pump()

    def _launch(self, batch: Batch) -> None:
        tickets: list[Ticket] = [item.payload for item in batch.items]
        device = self.devices[batch.device]
        job = BatchJob(
            tickets[0].lease,
            [ticket.request for ticket in tickets],
            lambda result, seconds: self._finished(batch, tickets, result, seconds),
            lambda index, partial: self._partial(
                batch, tickets[index], partial, self._clock.now() - batch.started
            ),
            max(self._execution_limit, _HUNG * batch.predicted),
        )
        self._facts.depth_changed(batch.key)
        for ticket in tickets:
            ticket.flights += 1
        self._running[batch] = (tickets, device.submit(job))
        self.hedging.launched(batch, tickets[0])

    def _finished(self, batch: Batch, tickets: list[Ticket], result: Result, seconds: float) -> None:
        del self._running[batch]
        now = self._clock.now()
        # Only true answers teach how long the model takes: errors are often quicker.
        answered = isinstance(result, list) and all(
            isinstance(each, InferResponse | Continued) for each in result
        )
        cancelled = isinstance(result, ClientClosed)
        known = answered or cut_short(result)
        self.scheduler.finish(
            batch, now, seconds if known else None, failed=broken(result), at_least=not answered
        )
        self.hedging.ended(batch, seconds if known else None, answered=answered)
        if not cancelled or not all(ticket.ended for ticket in tickets):  # else it lost against its hedge
            self._facts.executed(batch, seconds, result)
        self._resolve(batch, tickets, result, seconds, now)
        self._pump()

    def _resolve(
        self, batch: Batch, tickets: list[Ticket], result: Result, seconds: float, now: float
    ) -> None:
        """Give each request of an ended batch its outcome, or another chance. One that a second execution has
        answered has ended; one that a second execution may still answer does not fail yet."""
        outcomes: Sequence[Any] = [result] * len(tickets) if isinstance(result, BaseException) else result
        waiting: list[Ticket] = []
        taken = 0
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            ticket.flights -= 1
            if ticket.ended:
                if not ticket.flights:
                    ticket.lease.release()
            elif ticket.flights and not isinstance(outcome, InferResponse):
                continue  # the other execution may still answer
            elif isinstance(result, BaseException):
                waiting.append(ticket)
            elif isinstance(outcome, BackendCrashed):
                self._chances.crashed(batch, ticket, outcome, now)
            elif isinstance(outcome, Continued):
                taken += 1
                self._step(batch, ticket, outcome, seconds, now)
            else:
                if isinstance(outcome, InferResponse):
                    taken += ticket.item.steps > 0
                    outcome = ticket.described(outcome, batch, seconds, final=True)
                elif not isinstance(outcome, ServingError):
                    logger.error("model %s gave something that is no outcome", batch.key[0])
                    outcome = model_failed()
                self._end(ticket, outcome)
                if ticket.flights:
                    self._abandon_if_nobody_waits(ticket)
        if isinstance(result, BaseException):
            self._batch_failed(batch, waiting, result, now)
        if taken:
            self._facts.steps_changed(batch.key, taken)
            self._facts.depth_changed(batch.key)

    def _step(self, batch: Batch, ticket: Ticket, outcome: Continued, seconds: float, now: float) -> None:
        """A request has taken a step: on to the next, unless nobody waits for it any more."""
        item = ticket.item
        if outcome.partial is not None:
            self._partial(batch, ticket, outcome.partial, seconds)
        if ticket.done.done():
            self._end(ticket)
            return
        if not self._servable(item.key):
            self._end(ticket, lost(item.key))
            return
        ticket.waited += max(batch.started - item.arrival, 0.0)
        ticket.computed += seconds
        ticket.request = dataclasses.replace(ticket.request, state=outcome.state)
        if not item.steps:
            self._facts.stepping[item.key] += 1
        self.scheduler.requeue_step(item, now)

    def _partial(self, batch: Batch, ticket: Ticket, partial: InferResponse, seconds: float) -> None:
        """Hand on a partial answer of a request, if anybody still waits for it."""
        if ticket.done.done():
            return
        try:
            if ticket.deliver(ticket.described(partial, batch, seconds, final=False)):
                ticket.retried = True
        except Exception as error:  # its peers and its lease are not to stay behind
            if not isinstance(error, ServingError):
                logger.exception("model %s gave a partial answer that is none", batch.key[0])
                error = model_failed()
            self._settle(ticket, error)
            self._abandon_if_nobody_waits(ticket)

    def _batch_failed(self, batch: Batch, tickets: list[Ticket], error: BaseException, now: float) -> None:
        """Give what may be innocent another chance: elsewhere after a crash, in halves after a failure."""
        split = len(tickets) > 1 and not isinstance(error, ServingError)
        servable = self._servable(batch.key)
        for ticket in tickets:
            if isinstance(error, BackendCrashed):
                self._chances.crashed(batch, ticket, error, now)
                continue
            if split and servable and not ticket.done.done():
                # Apart from the rest of the queue, so that a bad item takes no new peers down with it.
                ticket.item.group = ("after a failure", ticket.item.group)
                ticket.item.max_rows = max(batch.rows // 2, ticket.item.rows)
                self.scheduler.requeue(ticket.item)
            else:
                if not isinstance(error, ServingError):
                    logger.error("model %s failed a batch", batch.key[0], exc_info=error)
                self._end(ticket, error if isinstance(error, ServingError) else model_failed(error))

    def _refuse(self, item: Item, error: ServingError) -> None:
        """Resolve a waiting item with an error; it has left, or now leaves, its queue."""
        self.scheduler.cancel(item)
        ticket: Ticket = item.payload
        self._facts.depth_changed(item.key)
        self._end(ticket, error)

    def _servable(self, key: QueueKey) -> bool:
        return any(state.can_run(key) for state in self.scheduler.devices.values())

    def _end(self, ticket: Ticket, outcome: InferResponse | ServingError | None = None) -> None:
        """It will not run (again): settle it if there is an outcome, give the lease back, and let go of the
        item. The two hold each other, so what was sent would be in memory until the garbage collector came
        by."""
        ticket.ended = True
        if not ticket.flights:  # else the execution that still runs gives it back
            ticket.lease.release()
        ticket.item.payload = None
        self._chances.ended(ticket)
        if ticket.item.steps:
            self._facts.stepping[ticket.item.key] -= 1
            self._facts.steps_changed(ticket.item.key, 0)
        if outcome is not None:
            self._settle(ticket, outcome)

    def _settle(self, ticket: Ticket, outcome: InferResponse | ServingError | None) -> None:
        if not ticket.done.done():
            if outcome is None:
                ticket.done.cancel()
            else:
                ticket.done.set_result(outcome)

    def _abandon_if_nobody_waits(self, ticket: Ticket) -> None:
        for tickets, abandon in list(self._running.values()):
            if ticket in tickets and all(each.done.done() for each in tickets):
                abandon()

    def _health_changed(self) -> None:
        for name, device in self.devices.items():
            self.scheduler.devices[name].healthy = device.healthy
        for key, queue in list(self.scheduler.queues.items()):
            if not self._servable(key):
                for item in list(queue):
                    self._refuse(item, lost(key))
        self._chances.refuse(
            lambda ticket: None if self._servable(ticket.item.key) else lost(ticket.item.key)
        )
        self._pump_soon()
