"""From a checked request to its answer: the cache, the execution that equal requests share, the queue."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

from nonet.gateway.cache import ResponseCache, cache_key
from nonet.gateway.core.admission import queued
from nonet.gateway.core.dispatcher import Dispatcher
from nonet.gateway.core.executions import executions
from nonet.gateway.core.partial_answers import PartialAnswers
from nonet.gateway.core.protocol_parameters import selected
from nonet.gateway.core.records import ANSWERED_BY_CACHE, RequestRecord, unsure_rows
from nonet.gateway.core.request_trace import current_trace
from nonet.gateway.core.ticket import Ticket
from nonet.gateway.scheduler import ItemState
from nonet.runtime.catalog import Lease
from nonet.runtime.clock import Clock
from nonet.runtime.errors import DeadlineExceeded, DeadlineUnattainable, ServingError
from nonet.runtime.oip import validation
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo


@dataclasses.dataclass(slots=True, kw_only=True)
class RequestProgress(RequestRecord):
    """The record of a request, filled in on its way, and who takes its partial answers (None: nobody)."""

    arrival: float
    deadline: float | None
    partials: PartialAnswers | None = None
    flight: bytes = b""

    def end(self, response: InferResponse | None, code: str, now: float) -> None:
        """It has ended at ``now``, with an answer or the code of an error."""
        self.ok, self.code, self.total = response is not None, code, now - self.arrival
        if self.deadline is not None:
            self.deadline_met = self.ok and now <= self.deadline
        if response is not None:
            self.device = response.device
            self.unsure = unsure_rows(response, self.rows)
            if self.cache not in ANSWERED_BY_CACHE:
                timings, self.batch_size = response.timings, response.batch_size
                self.queue, self.decode = timings.queue, timings.decode
                self.compute, self.encode = timings.compute, timings.encode


class Execution:
    """See the module's text.

    A flight is an execution that equal requests share; who joins one gets the partial answers that come from
    then on.

    Args:
        dispatcher: queues what must be executed.
        cache: the response cache, or None for none at all.
        clock: the clock of deadlines.
    """

    def __init__(self, dispatcher: Dispatcher, cache: ResponseCache | None, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._cache = cache
        # Where nothing is kept nothing can be missed, though equal requests are joined.
        self._not_found = "miss" if cache is not None and cache.keeps else "bypass"
        self._tickets: dict[bytes, Ticket] = {}
        self._hurries: dict[bytes, list[tuple[int, float]]] = {}
        self._readers: dict[bytes, list[PartialAnswers]] = {}

    def executes(self, progress: RequestProgress) -> bool:
        """Whether the execution that a request shares with its equals has begun."""
        ticket = self._tickets.get(progress.flight)
        return ticket is not None and ticket.item.state is ItemState.RUNNING

    async def answer(
        self, request: InferRequest, lease: Lease, deadline: float, progress: RequestProgress
    ) -> InferResponse:
        """Look the answer up, join an equal request in flight, or execute."""
        info = lease.info
        cache = self._cache
        if cache is None or not info.cacheable or not request.store_in_cache:
            progress.stage = "queued"
            return await self._execute(request, lease, deadline, progress)
        key = cache_key(request, info)
        if not request.use_cache:
            progress.stage = "queued"
            response = await self._execute(request, lease, deadline, progress)
            await cache.put(key, response, shared=bool(info.digest))
            return response
        progress.flight, progress.cache = key, self._not_found
        if progress.partials is None:
            return await self._shared(request, lease, deadline, progress, cache, key)
        readers = self._readers.setdefault(key, [])
        readers.append(progress.partials)
        try:
            return await self._shared(request, lease, deadline, progress, cache, key)
        finally:
            readers.remove(progress.partials)
            if not readers:
                del self._readers[key]

    async def _shared(
        self,
        request: InferRequest,
        lease: Lease,
        deadline: float,
        progress: RequestProgress,
        cache: ResponseCache,
        key: bytes,
    ) -> InferResponse:
        while True:
            found = await cache.get(key)
            if found is not None:
                progress.cache = "hit"
                return dataclasses.replace(found, device="cache")
            progress.stage = "queued"
            flew = False

            async def fly() -> InferResponse:
                nonlocal flew
                flew = True
                # The flight may outlive the request that started it, so it holds a lease of its own.
                with lease.share() as flight_lease:
                    try:
                        # What has no digest may be another model elsewhere, under the same name.
                        until = None
                        if lease.info.digest:
                            until = functools.partial(
                                self._may_wait, request, lease.info, deadline, progress.rows
                            )
                        execute = functools.partial(self._execute, request, flight_lease, deadline, progress)
                        return await cache.make(key, execute, until)
                    finally:
                        self._hurries.pop(key, None)

            try:
                response, joined = await cache.flights.run(
                    key,
                    fly,
                    hurry=functools.partial(self._share, key),
                    priority=request.priority,
                    deadline=deadline,
                )
            except (DeadlineExceeded, DeadlineUnattainable):
                # What was too late for the one that started the flight may be in time for this one.
                if flew:
                    raise
                continue
            made_elsewhere = response.cache == "hit"
            progress.cache = "coalesced" if joined else "hit" if made_elsewhere else self._not_found
            return response

    def _may_wait(self, request: InferRequest, info: ModelInfo, deadline: float, rows: int) -> float:
        """The instant until which another gateway may be waited for, so that there is still time to execute
        the request here: twice what that is thought to take."""
        now = self._clock.now()
        each, left = executions(info, rows, request.cost, self._dispatcher.in_steps)
        key = (info.name, info.version)
        ready = self._dispatcher.scheduler.estimate(key, each, request.priority, deadline, now, left=left)
        return deadline - 2.0 * (ready - now)

    async def _execute(
        self, request: InferRequest, lease: Lease, deadline: float, progress: RequestProgress
    ) -> InferResponse:
        """Queue the request, await its outcome, check it and give it the shape the caller asked for."""
        flight = progress.flight
        trace = current_trace.get()
        if trace is not None:
            progress.span_id = trace.new_span()
            request = dataclasses.replace(request, traceparent=trace.header(progress.span_id))
        progress.queued_at = self._clock.now()

        def deliver(partial: InferResponse) -> bool:
            readers = self._readers.get(flight, ()) if flight else (progress.partials,)
            if not any(readers):
                return False
            validation.check_outputs(partial, lease.info)
            partial = selected(partial, request, lease.info)
            for reader in filter(None, readers):
                reader.put(partial)
            return True

        ticket = self._dispatcher.submit(
            request, lease.share(), progress.rows, deadline, deliver, request_id=queued()
        )
        if flight:
            self._tickets[flight] = ticket
            for hurry in self._hurries.pop(flight, ()):
                self._dispatcher.share(ticket, *hurry)
        try:
            outcome = await ticket.done
        except asyncio.CancelledError:
            if not self._dispatcher.abandon(ticket):
                progress.stage = "executing"
            raise
        finally:
            progress.executed_at = self._clock.now()
            if begun := ticket.item.started:
                progress.begun_at = progress.queued_at if ticket.item.steps else begun
            if flight:
                self._tickets.pop(flight, None)
        if isinstance(outcome, ServingError):
            raise outcome
        validation.check_outputs(outcome, lease.info)
        return selected(outcome, request, lease.info)

    def _share(self, flight: bytes, priority: int, deadline: float) -> None:
        ticket = self._tickets.get(flight)
        if ticket is not None:
            self._dispatcher.share(ticket, priority, deadline)
        else:
            # Joined in the turn of the loop that started the flight: its ticket comes next.
            self._hurries.setdefault(flight, []).append((priority, deadline))
