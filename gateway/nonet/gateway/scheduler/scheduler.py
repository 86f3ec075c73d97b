"""The scheduler: forms batches and assigns them to devices so that every request meets its deadline.

Algorithm. Each model version has one queue, ordered by priority, deadline and arrival. When a lane of a
device is free, :meth:`Scheduler.pull` looks at the heads of the queues the device serves, takes the queue
whose head has the highest priority and must start soonest, and builds the largest batch of compatible items
in that order whose predicted end meets the deadline of every item in it. Free sibling lanes share what
waits, so that one lane does not take all the work while another idles. An item that no device can finish in
time any more is dropped before it costs anything; :meth:`Scheduler.submit` refuses one at once if, behind the
work ahead of it, it would end too late. An item whose execution was one step of several comes back through
:meth:`Scheduler.requeue_step`: it keeps deadline and priority, and takes its turn behind all of its priority
that wait at that moment, on all devices and for all models.

Guarantees (tested in simulated time): every submitted item leaves exactly once, through a batch, `cancel`,
`expire` or a refusal; no batch exceeds its model's rows; order within a queue is by urgency; nothing waits
while a device that can run it in time idles, unless a cheaper one can, too, and that is wanted
(:mod:`.placement`); an item of many steps holds no other of its priority up by more
than one of them.

Limits: priorities are strict, so a flood of priority 0 starves the rest until their deadlines drop them; for
taking turns, an item of many steps that is behind one with a late deadline goes behind what comes meanwhile
with an earlier one, too. Predictions take the lanes of a device as equal and independent; for one execution
they count a step of each item ahead, for many the turns of all that are there (:mod:`.turns`), never what
comes later. The online correction absorbs the rest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from nonet.gateway.scheduler.devices import Batch, DeviceState
from nonet.gateway.scheduler.ejection import Ejection
from nonet.gateway.scheduler.expected import Expected
from nonet.gateway.scheduler.forecast import Forecast
from nonet.gateway.scheduler.latency import LatencyModel
from nonet.gateway.scheduler.placement import Placement
from nonet.gateway.scheduler.promises import Promises
from nonet.gateway.scheduler.queue import NOBODY, Caller, Item, ItemState, ModelQueue, QueueKey
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, Unavailable


class Scheduler:
    """Owns the queues; see the module's text. Not thread-safe: one event loop drives it.

    Args:
        limits: how much may wait, and how careful the predictions are.
        devices: where batches run.
        overhead: seconds between the end of a batch and its answers reaching the callers.
    """

    def __init__(
        self, limits: SchedulerSettings, devices: Iterable[DeviceState], overhead: float = 0.0005
    ) -> None:
        self._limits = limits
        self._overhead = overhead
        self.devices: dict[str, DeviceState] = {device.name: device for device in devices}
        self.queues: dict[QueueKey, ModelQueue] = {}
        self.expected = Expected()
        self.ejection = Ejection(self.devices, limits.ejection)
        self._forecast = Forecast(self.queues, self.expected, limits.safety_factor)
        self._promises = Promises()
        self._placement = Placement(limits.placement, limits.safety_factor)
        self._sequence = 0

    # -- entering -------------------------------------------------------------------------------

    def submit(self, item: Item, now: float) -> None:
        """Queue ``item``.

        Raises:
            DeadlineExceeded: its deadline has passed.
            Unavailable: its queue is full, or no healthy device serves its model.
            DeadlineUnattainable: no device can finish it in time; ``retry_after`` is the time after which
                the work ahead of it will have gone.
        """
        predicted = self.check(
            item.key, item.priority, item.deadline, now, cost=item.cost, left=item.left, caller=item.caller
        )
        item.predicted = predicted if item.left <= 1.0 else 0.0
        self._promises.redeem(item)
        seconds = self._fastest(item.key, item.cost, now)
        shares, tenant = self._promises.shares, item.caller.tenant
        item.due = shares.due(tenant, item.deadline, seconds, now)
        shares.queued(tenant, seconds, now)
        if item.sequence < 0:
            item.sequence = self._sequence
            self._sequence += 1
        item.state = ItemState.WAITING
        self.queues.setdefault(item.key, ModelQueue(item.key)).add(item)

    def check(
        self,
        key: QueueKey,
        priority: int,
        deadline: float,
        now: float,
        *,
        cost: float = 1.0,
        left: float = 1.0,
        caller: Caller = NOBODY,
    ) -> float:
        """Whether an item of ``cost`` and ``left`` executions could be submitted now: the seconds it is
        predicted to take, 0.0 if it has no deadline; raises what :meth:`submit` would. What
        ``caller`` is for, :mod:`.kept_places` and :mod:`.fair_shares` tell."""
        if deadline <= now:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        able = self.able(key, now)
        if not able:
            raise Unavailable(f"no healthy device serves model '{key[0]}'", code="NO_DEVICE", retry_after=1.0)
        queue = self.queues.get(key)
        room = self._promises.room(caller, queue.tenants if queue is not None else {}, now)
        if queue is not None and len(queue) >= self._limits.max_queue * (1.0 - room):
            raise Unavailable(
                f"the queue of model '{key[0]}' is full ({len(queue)} requests wait)",
                code="QUEUE_FULL",
                retry_after=max(self._forecast.wait(able, priority, math.inf, now), 0.05),
            )
        if deadline == math.inf:
            return 0.0
        alone = self._fastest(key, cost, now) * left
        due = self._promises.shares.due(caller.tenant, deadline, alone, now)
        predicted = self._forecast.answer(able, key, cost, left, priority, due, now)
        end = now + predicted + self._overhead
        if predicted > alone * self._limits.safety_factor:  # a lane that idles is kept for nobody
            room = max(room, self._promises.kept(key, caller, now))
            end += self._promises.seconds(key, predicted, now) - predicted + room * (deadline - now)
        if end > deadline:
            late = end - deadline
            rate = sum(
                device.lanes / max(device.model(key).predict(cost * left, now), 1e-9) for device in able
            )
            raise DeadlineUnattainable(
                f"the answer would come in {(end - now) * 1e3:.0f} ms, "
                f"{late * 1e3:.0f} ms after the deadline; allow more time or retry later",
                retry_after=self._promises.keep(key, caller, late, alone, deadline - now, rate, now),
            )
        return predicted

    def estimate(
        self,
        key: QueueKey,
        cost: float,
        priority: int,
        deadline: float,
        now: float,
        *,
        left: float = 1.0,
        on: DeviceState | None = None,
    ) -> float:
        """The instant at which a request of ``left`` executions of ``cost`` arriving now would be answered,
        by all devices, or as if there were only the one that it is to be ``on``.

        ``math.inf`` if no healthy device serves the model. While a model's latency is unknown its share
        counts as nothing.
        """
        able = self.able(key, now) if on is None else [on]
        predicted = self._forecast.answer(able, key, cost, left, priority, deadline, now)
        return now + self._promises.seconds(key, predicted, now) + self._overhead

    def wait(self, key: QueueKey, priority: int, deadline: float, now: float) -> float:
        """Seconds until a lane would turn to a request that arrives now; infinite if nothing serves it."""
        return self._forecast.wait(self.able(key, now), priority, deadline, now)

    def able(self, key: QueueKey, now: float) -> list[DeviceState]:
        """The devices that are to run ``key`` now: those that can, without the ejected, if any is left."""
        able = [device for device in self.devices.values() if device.can_run(key)]
        if len(able) < 2 or not self.ejection.enabled:
            return able
        return [device for device in able if not self.ejection.rests(device.name, now)] or able

    # -- leaving --------------------------------------------------------------------------------

    def cancel(self, item: Item) -> bool:
        """The caller has gone. True if the item was waiting and has left; False if it runs or is done
        (a running item's result is for its owner to drop)."""
        if item.state is not ItemState.WAITING:
            return False
        self._take(item)
        item.state = ItemState.DONE
        return True

    def expire(self, now: float) -> list[Item]:
        """Remove and return the waiting items that no device can finish in time any more."""
        hopeless = []
        for key, queue in self.queues.items():
            # Most of the time nobody is close to a deadline: one prediction for all of the queue tells.
            left = max(item.left for item in queue)
            longest = self._fastest(key, max(item.cost for item in queue), now) * left
            if min(item.deadline for item in queue) >= now + longest + self._overhead:
                continue
            for item in queue:
                run = self._fastest(key, item.cost, now) * item.left
                if item.deadline < now + run + self._overhead:
                    hopeless.append(item)
        for item in hopeless:
            self._take(item)
            item.state = ItemState.DONE
            self._promises.ended(item, now, answered=False)
        return hopeless

    def share(self, item: Item, priority: int, deadline: float) -> None:
        """Another caller with the same request waits for ``item`` too: it becomes as urgent as the most
        urgent of them and lives as long as the most patient. What it runs now, which may be a step of
        several, stays as it is."""
        queue = self.queues[item.key] if item.state is ItemState.WAITING else None
        if queue is not None:
            queue.remove(item)
        item.priority = min(priority, item.priority)
        if not item.steps:  # else its turn stays
            item.due = min(deadline, item.due)
        item.deadline = max(deadline, item.deadline)
        if queue is not None:
            queue.add(item)

    def pull(self, name: str, now: float) -> Batch | None:
        """The batch a free lane of device ``name`` should run now, or None. Items in it become running."""
        device = self.devices[name]
        if not device.healthy or device.free_lanes < 1:
            return None
        rests = self.ejection.enabled and self.ejection.rests(name, now)
        others = (each for each in self.devices.values() if not self.ejection.rests(each.name, now))
        left = self._placement.leaves(device, others, self.queues, now)
        candidates = []
        for key, queue in self.queues.items():
            if not queue or not device.serves(key) or (rests and device not in self.able(key, now)):
                continue
            latency = device.model(key)
            head = next(
                (item for item in queue if item not in left and self._in_time(latency, item, now)), None
            )
            if head is not None:
                # A turn is later than what it is behind, whatever that takes.
                start_by = head.due - (0.0 if head.steps else latency.predict(head.cost, now))
                candidates.append((head.priority, start_by, head.sequence, head))
        if not candidates:
            return None
        head = min(candidates, key=lambda candidate: candidate[:3])[3]
        return self._form(device, head, now, left)

    def finish(
        self,
        batch: Batch,
        now: float,
        seconds: float | None = None,
        *,
        failed: bool = False,
        at_least: bool = False,
    ) -> None:
        """A batch has ended; its lane is free. ``seconds`` of execution corrects the profile; None (a
        failure) teaches nothing. ``at_least``: it was given up after so long, which teaches something if it
        is longer than predicted. ``failed``: and the device is to blame."""
        device = self.devices[batch.device]
        device.running.remove(batch)
        for item in batch.items:
            item.state = ItemState.DONE
            if seconds is not None and not at_least:
                self._promises.ended(item, now, answered=True)
        if at_least and seconds is not None and seconds <= max(batch.predicted, batch.usual):
            seconds = None
        ratio = seconds / batch.usual if seconds is not None and batch.usual > 0.0 else None
        self.ejection.observe(batch.device, ratio, failed, now)
        # A version that has left meanwhile was forgotten, and stays so.
        if seconds is not None and (latency := device.latency.get(batch.key)) is not None:
            latency.observe(batch.cost, seconds, now)

    def requeue(self, item: Item) -> None:
        """Put an item of a failed batch back, with its old urgency (one safe retry on another device)."""
        item.state = ItemState.WAITING
        self.queues.setdefault(item.key, ModelQueue(item.key)).add(item)

    def requeue_step(self, item: Item, now: float) -> None:
        """Put an item back whose execution was a step and not the last; see the module's text."""
        turn = max([queue.latest_due(item.priority) for queue in self.queues.values()], default=-math.inf)
        item.again(turn, self._sequence, now)
        self._sequence += 1
        self.requeue(item)

    def forget(self, key: QueueKey) -> None:
        """A version has left: what was learnt of it goes, too."""
        self._promises.forget(key)
        for device in self.devices.values():
            device.latency.pop(key, None)

    # -- inside ---------------------------------------------------------------------------------

    def _form(self, device: DeviceState, head: Item, now: float, left: Collection[Item]) -> Batch:
        latency = device.model(head.key)
        queue = self.queues[head.key]
        limit = max(head.max_rows, head.rows)
        if device.free_lanes > 1:
            # Sibling lanes are idle too: a fair share each ends sooner than one large batch.
            limit = max(min(limit, math.ceil(queue.rows / device.free_lanes)), head.rows)
        chosen = [head]
        rows, cost = head.rows, head.cost
        earliest = self._latest(latency, head, now)
        for item in queue:
            if rows >= limit:
                break
            if item is head or item.group != head.group or rows + item.rows > limit:
                continue
            if item in left:
                continue
            end = self._end(latency, cost + item.cost, now)
            if end > earliest:
                break  # every further item only makes the batch longer
            latest = self._latest(latency, item, now)
            if end > latest:
                continue
            chosen.append(item)
            rows += item.rows
            cost += item.cost
            earliest = min(earliest, latest)
        for item in chosen:
            queue.remove(item)
            item.state = ItemState.RUNNING
            item.started = now
        if not queue:
            del self.queues[head.key]
        return device.begin(head.key, chosen, now)

    def _take(self, item: Item) -> None:
        queue = self.queues[item.key]
        queue.remove(item)
        if not queue:
            del self.queues[item.key]

    def _end(self, latency: LatencyModel, cost: float, now: float) -> float:
        """When a batch of ``cost`` started now would be answered. While the safety margin guards the
        door, work that was let in is held against the plain prediction."""
        return now + latency.predict(cost, now) + self._overhead

    @staticmethod
    def _latest(latency: LatencyModel, item: Item, now: float) -> float:
        """When its next execution must have ended for the further ones to be in time."""
        if item.left <= 1.0:
            return item.deadline
        return item.deadline - (item.left - 1.0) * latency.predict(item.cost, now)

    def _in_time(self, latency: LatencyModel, item: Item, now: float) -> bool:
        return self._end(latency, item.cost, now) <= self._latest(latency, item, now)

    def _fastest(self, key: QueueKey, cost: float, now: float) -> float:
        """Seconds that the quickest healthy device needs for ``cost``; 0.0 if there is none."""
        return min(
            (device.model(key).predict(cost, now) for device in self.able(key, now)),
            default=0.0,
        )
