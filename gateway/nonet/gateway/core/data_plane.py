"""The data plane: the one path of a request, free of any transport.

    lease -> validation -> deadline -> cache and single-flight -> scheduler -> device -> checks -> answer

REST and gRPC are thin faces over :meth:`DataPlane.infer`; what holds here holds for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence

from nonet.gateway.cache import ResponseCache, cache_key
from nonet.gateway.core.calibration import Calibrator
from nonet.gateway.core.dispatcher import Dispatcher, Ticket
from nonet.gateway.core.in_flight import InFlight
from nonet.gateway.core.model_events import Presence
from nonet.gateway.core.plane_policy import PlanePolicy
from nonet.gateway.core.protocol_parameters import normalised, selected
from nonet.gateway.core.records import ModelStatistics, Observer, RequestRecord
from nonet.gateway.core.routing import Router
from nonet.gateway.core.statistics import StatisticsKeeper
from nonet.gateway.core.time_limit import TimeLimit
from nonet.gateway.executor.contract import Device, VersionGone
from nonet.gateway.scheduler import ItemState, SchedulerPolicy
from nonet.runtime.catalog import Catalog, Lease
from nonet.runtime.clock import Clock
from nonet.runtime.errors import (
    DeadlineExceeded,
    DeadlineUnattainable,
    ServingError,
    Unavailable,
)
from nonet.runtime.oip import validation
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo

__all__ = ["DataPlane", "PlanePolicy"]


@dataclasses.dataclass(slots=True)
class _Journey:
    """What the record of a request will say; filled in on the way."""

    model: str = ""
    version: str = ""
    rows: int = 1
    stage: str = "admission"
    cache: str = "bypass"
    flight: bytes = b""
    deadline: float | None = None


class DataPlane:
    """See the module's text.

    Args:
        catalog: what can be called.
        devices: where it runs.
        clock: the monotonic clock of all deadlines; while serving it must tick with the event loop's.
        scheduling, policy: limits.
        cache: the response cache, or None for none at all.
        ranks: by task, the quality figure that orders its families; see :class:`Router`.
    """

    def __init__(
        self,
        catalog: Catalog,
        devices: Sequence[Device],
        *,
        clock: Clock,
        scheduling: SchedulerPolicy | None = None,
        policy: PlanePolicy | None = None,
        cache: ResponseCache | None = None,
        ranks: Mapping[str, str] | None = None,
    ) -> None:
        self.catalog = catalog
        self.clock = clock
        self._policy = policy or PlanePolicy()
        self._cache = cache
        self._statistics = StatisticsKeeper()
        self._observers: list[Observer] = [self._statistics]
        self._dispatcher = Dispatcher(devices, scheduling or SchedulerPolicy(), clock, self._observers)
        self._calibrator = Calibrator(catalog, self._dispatcher)
        self._presence = Presence(catalog, self._dispatcher, self._observers)
        self._router = Router(catalog, self._answered_at, self._policy.preferred_families, ranks)
        self._tickets: dict[bytes, Ticket] = {}
        self._hurries: dict[bytes, list[tuple[int, float]]] = {}
        self._in_flight = InFlight()
        self._in_flight_bytes = 0
        self._started = False
        self._draining = False
        self._stopped = False

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the devices and measure what is loaded; requests are accepted when this returns."""
        self._presence.start()
        await self._dispatcher.start()
        await self._calibrator.start()
        self._started = True

    async def drain(self, grace: float) -> bool:
        """Refuse what is new and let what is in flight finish, for at most ``grace`` seconds.

        True if all of it finished.
        """
        self._draining = True
        return await self._in_flight.end(grace)

    async def stop(self) -> None:
        """Stop the devices. What is still waiting is refused."""
        self._draining = self._stopped = True
        self._presence.stop()
        self._calibrator.stop()
        await self._dispatcher.stop()
        if self._cache is not None:
            await self._cache.close()

    @property
    def accepting(self) -> bool:
        """Whether new requests are let in."""
        return self._started and not self._draining

    @property
    def in_flight(self) -> int:
        """Requests between arrival and answer."""
        return self._in_flight.count

    def live(self) -> bool:
        """The process works; it may not be ready."""
        return True

    def ready(self) -> bool:
        """Accepting, something to serve, and a healthy device in each group of devices."""
        groups: dict[str, bool] = {}
        for device in self._dispatcher.devices.values():
            groups[device.group] = groups.get(device.group, False) or device.healthy
        return self.accepting and not self.catalog.empty and all(groups.values())

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether a version would be served now. Raises NotFound for one nobody knows."""
        try:
            info = self.catalog.info(name, version)
        except Unavailable:
            return False
        key = (info.name, info.version)
        return self.accepting and any(
            state.can_run(key) for state in self._dispatcher.scheduler.devices.values()
        )

    # -- facts ----------------------------------------------------------------------------------

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer`` of everything from now on."""
        self._observers.append(observer)

    def statistics(self, name: str = "", version: str = "") -> list[ModelStatistics]:
        """Totals of the ready versions, of one model or one version if named.

        Raises NotFound or Unavailable for a named model that cannot be called.
        """
        if name:
            self.catalog.info(name, version)
        return [
            self._statistics.of(info.name, info.version)
            for info in self.catalog.infos(name)
            if version in ("", info.version)
        ]

    def queue_depths(self) -> dict[tuple[str, str], int]:
        """Requests that wait, per model version that has any."""
        return {key: len(queue) for key, queue in self._dispatcher.scheduler.queues.items()}

    def utilisation(self) -> dict[str, float]:
        """Share of each device's lanes that are busy, 0..1."""
        return {
            state.name: len(state.running) / state.lanes
            for state in self._dispatcher.scheduler.devices.values()
        }

    def devices_of(self, info: ModelInfo) -> list[str]:
        """Names of the devices that can run a version now."""
        key = (info.name, info.version)
        return [state.name for state in self._dispatcher.scheduler.devices.values() if state.can_run(key)]

    def choose(self, task: str, model: str, *, deadline: float | None, priority: int = 1) -> ModelInfo:
        """The service for a task request; see :meth:`Router.choose`."""
        return self._router.choose(task, model, deadline=deadline, priority=priority)

    def rank(self, task: str) -> str:
        """The quality figure that orders the families of a task."""
        return self._router.rank(task)

    # -- the path -------------------------------------------------------------------------------

    def admit(self) -> contextlib.AbstractContextManager[None]:
        """Let a request in before its body has arrived: use it as ``with plane.admit():`` at once;
        :meth:`drain` then waits until the block is left.

        Call :meth:`infer` inside with ``admitted=True``. Raises Unavailable (``DRAINING``).
        """
        if not self.accepting:
            raise Unavailable("the server is draining; try another one", code="DRAINING")
        return self._in_flight

    async def infer(self, request: InferRequest, *, admitted: bool = False) -> InferResponse:
        """Answer ``request``. Cancelling the awaiting task withdraws the work.

        ``admitted``: it was let in by :meth:`admit`, so it is served even if the plane drains by now.
        Raises ServingError; every call is recorded exactly once with all observers.
        """
        if admitted:
            return await self._recorded(request, admitted)
        with self._in_flight:
            return await self._recorded(request, admitted)

    async def _recorded(self, request: InferRequest, admitted: bool) -> InferResponse:
        arrival = self.clock.now()
        journey = _Journey(deadline=request.deadline)
        response: InferResponse | None = None
        code = ""
        size = sum(tensor.nbytes for tensor in request.inputs)
        self._in_flight_bytes += size
        try:
            if self._stopped:
                raise Unavailable("the server has shut down", code="SHUTTING_DOWN")
            if not admitted and not self.accepting:
                raise Unavailable("the server is draining; try another one", code="DRAINING")
            response = await self._serve(request, arrival, journey)
            journey.stage = "done"
            return response
        except ServingError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CLIENT_CLOSED"
            ticket = self._tickets.get(journey.flight)
            if ticket is not None and ticket.item.state is ItemState.RUNNING:
                journey.stage = "executing"
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self._in_flight_bytes -= size
            self._record(journey, response, code, arrival)

    async def _serve(self, request: InferRequest, arrival: float, journey: _Journey) -> InferResponse:
        if self._in_flight_bytes > self._policy.max_in_flight_bytes:
            raise Unavailable("the server holds as much input as it may; retry later", code="OVERLOADED")
        try:
            return await self._serve_version(request, arrival, journey)
        except VersionGone:
            if request.version:
                raise
        # The version was replaced where it runs; a caller that named none gets the new one.
        return await self._serve_version(request, arrival, journey)

    async def _serve_version(self, request: InferRequest, arrival: float, journey: _Journey) -> InferResponse:
        with self.catalog.lease(request.model, request.version) as lease:
            info = lease.info
            journey.model, journey.version = info.name, info.version
            parameters, asked, priority = normalised(request, arrival)
            journey.deadline = asked
            validation.validate(request, info)
            journey.rows = request.inputs[0].shape[0] if info.max_batch_size else 1
            deadline = arrival + self._policy.default_timeout if asked is None else asked
            deadline = min(deadline, arrival + self._policy.max_timeout)
            # Work that is long looks at the deadline on its way, so it must know the default one too.
            request = dataclasses.replace(
                request, version=info.version, parameters=parameters, deadline=deadline, priority=priority
            )
            left = deadline - self.clock.now()
            if left <= 0:
                raise DeadlineExceeded("the deadline had passed when the request arrived")
            limit = TimeLimit(left)
            try:
                with limit:
                    response = await self._cached(request, lease, deadline, journey)
            except TimeoutError:
                if not limit.passed:
                    raise
                raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        if response.id == request.id and response.cache == journey.cache:
            return response
        return dataclasses.replace(response, id=request.id, cache=journey.cache)

    async def _cached(
        self, request: InferRequest, lease: Lease, deadline: float, journey: _Journey
    ) -> InferResponse:
        """Look the answer up, join an equal request in flight, or execute."""
        info = lease.info
        cache = self._cache
        if cache is None or not info.cacheable or not request.store_in_cache:
            journey.stage = "queued"
            return await self._execute(request, lease, deadline, journey)
        key = cache_key(request, info)
        if not request.use_cache:
            journey.stage = "queued"
            response = await self._execute(request, lease, deadline, journey)
            await cache.put(key, response)
            return response
        journey.flight, journey.cache = key.digest, "miss"
        while True:
            found = await cache.get(key)
            if found is not None:
                journey.cache = "hit"
                return dataclasses.replace(found, device="cache")
            journey.stage = "queued"
            flew = False

            async def fly() -> InferResponse:
                nonlocal flew
                flew = True
                # The flight may outlive the request that started it, so it holds a lease of its own.
                with lease.share() as flight_lease:
                    try:
                        response = await self._execute(request, flight_lease, deadline, journey)
                        await cache.put(key, response)
                    finally:
                        self._hurries.pop(key.digest, None)
                    return response

            try:
                response, joined = await cache.flights.run(
                    key.digest,
                    fly,
                    hurry=functools.partial(self._share, key.digest),
                    priority=request.priority,
                    deadline=deadline,
                )
            except (DeadlineExceeded, DeadlineUnattainable):
                # What was too late for the one that started the flight may be in time for this one.
                if flew:
                    raise
                continue
            journey.cache = "coalesced" if joined else "miss"
            return response

    async def _execute(
        self, request: InferRequest, lease: Lease, deadline: float, journey: _Journey
    ) -> InferResponse:
        """Queue the request, await its outcome, check it and give it the shape the caller asked for."""
        flight = journey.flight
        ticket = self._dispatcher.submit(request, lease.share(), journey.rows, deadline)
        if flight:
            self._tickets[flight] = ticket
            for hurry in self._hurries.pop(flight, ()):
                self._dispatcher.share(ticket, *hurry)
        try:
            outcome = await ticket.done
        except asyncio.CancelledError:
            if not self._dispatcher.abandon(ticket):
                journey.stage = "executing"
            raise
        finally:
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

    def _answered_at(self, info: ModelInfo, priority: int, deadline: float) -> float:
        return self._dispatcher.scheduler.estimate(
            (info.name, info.version), 1, priority, deadline, self.clock.now()
        )

    def _record(self, journey: _Journey, response: InferResponse | None, code: str, arrival: float) -> None:
        now = self.clock.now()
        timings = response.timings if response is not None else None
        executed = response is not None and journey.cache not in ("hit", "coalesced")
        record = RequestRecord(
            model=journey.model,
            version=journey.version,
            rows=journey.rows,
            ok=response is not None,
            code=code,
            stage=journey.stage,
            cache=journey.cache,
            device=response.device if response is not None else "",
            batch_size=response.batch_size if response is not None and executed else 0,
            total=now - arrival,
            queue=timings.queue if timings and executed else 0.0,
            decode=timings.decode if timings and executed else 0.0,
            compute=timings.compute if timings and executed else 0.0,
            encode=timings.encode if timings and executed else 0.0,
            deadline_met=None
            if journey.deadline is None
            else response is not None and now <= journey.deadline,
        )
        for observer in self._observers:
            observer.on_request(record)
