"""The data plane: the one path of a request, free of any transport.

    admission -> lease -> validation -> deadline -> what it needs of other models (each the same path), cost
    -> cache and single-flight -> scheduler -> device -> checks -> answer, or a stream of them

REST and gRPC are thin faces over :meth:`DataPlane.infer` and :meth:`DataPlane.stream`; what holds here holds
for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, Mapping, Sequence

from nonet.gateway.cache import ResponseCache
from nonet.gateway.core.admission import Admission, InFlight, Place
from nonet.gateway.core.calibration import Calibrator
from nonet.gateway.core.choosing import Chooser
from nonet.gateway.core.composing import Composer
from nonet.gateway.core.costs import Cost, Costs
from nonet.gateway.core.dispatcher import Dispatcher
from nonet.gateway.core.execution import Execution, RequestProgress
from nonet.gateway.core.explaining import Explainer
from nonet.gateway.core.model_events import ModelEvents
from nonet.gateway.core.partial_answers import PartialAnswers, streamed
from nonet.gateway.core.protocol_parameters import normalised
from nonet.gateway.core.records import ModelStatistics, Observer
from nonet.gateway.core.routing import Absence, no_more_than_a_model
from nonet.gateway.core.shadow_runs import ShadowRuns
from nonet.gateway.core.statistics import StatisticsKeeper
from nonet.gateway.core.time_limit import TimeLimit
from nonet.gateway.executor.contract import Device, VersionGone
from nonet.gateway.executor.embedded import EmbeddedDevice
from nonet.gateway.scheduler import NOBODY, Caller, QueueKey
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import Clock
from nonet.runtime.composition import Composition
from nonet.runtime.errors import DeadlineExceeded, ServingError, Unavailable
from nonet.runtime.oip import validation
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo


class DataPlane:
    """See the module's text.

    Attributes:
        leaving: set from the first signal to stop on: readiness says no, requests are still served.
        chooser: chooses the services of task requests, and ``choose`` is its method.
        explainer: tells why a request was placed where it was.
        router: knows the families of services.
        shadows: tries new versions on live requests, None where none are.
        trouble: what else keeps the process from being ready, "" if nothing; requests are still served.

    Args:
        catalog: what can be called.
        devices: where it runs.
        clock: the monotonic clock of all deadlines; while serving it must tick with the event loop's.
        limits: of what waits, and of the time that requests may take.
        max_in_flight_bytes: bytes of all inputs between arrival and answer; more is refused (503).
        preferred_families: families that ``model: auto`` tries first.
        cache: the response cache, or None for none at all.
        ranks: by task, the quality figure that orders a family.
        absence: says of a task without a model what is missing, if it is more than the model.
        costs: tells the cost of the requests of a task; where there is none, it is their rows. A ServingError
            says that the model does not take the request.
        compositions: by task, what requests to its models need of other models first.
    """

    def __init__(
        self,
        catalog: Catalog,
        devices: Sequence[Device],
        *,
        clock: Clock,
        limits: SchedulerSettings | None = None,
        max_in_flight_bytes: int = 512 << 20,
        preferred_families: Sequence[str] = ("imagenet", "coco"),
        cache: ResponseCache | None = None,
        costs: Mapping[str, Cost] | None = None,
        ranks: Mapping[str, str] | None = None,
        absence: Absence = no_more_than_a_model,
        compositions: Mapping[str, Composition] | None = None,
    ) -> None:
        self.catalog = catalog
        self.clock = clock
        self.leaving = False
        self.trouble = ""
        self.shadows: ShadowRuns | None = None
        self._limits = limits or SchedulerSettings()
        self._cache = cache
        self._statistics = StatisticsKeeper()
        self._observers: list[Observer] = [self._statistics]
        self._dispatcher = Dispatcher(devices, self._limits, clock, self._observers)
        self._calibrator = Calibrator(catalog, self._dispatcher)
        self._model_events = ModelEvents(catalog, self._dispatcher, self._observers)
        self._costs = Costs(costs or {})
        self.chooser = Chooser(
            catalog,
            self._dispatcher,
            self._costs,
            clock,
            self._limits.default_timeout,
            preferred_families,
            dict(ranks or {}),
            absence,
        )
        self.choose = self.chooser.choose
        self.explainer = Explainer(self.chooser, self._dispatcher.scheduler, clock)
        self.router = self.chooser.router
        self._admission = Admission(
            catalog, self.router, self._dispatcher.scheduler, clock, max_in_flight_bytes
        )
        self._execution = Execution(self._dispatcher, cache, clock)
        self._composer = Composer(
            compositions or {}, self.choose, catalog.info, functools.partial(self.infer, admitted=True)
        )
        self._in_flight = InFlight()
        self._stopped = False

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the devices and measure what is loaded; requests are accepted when this returns."""
        self._model_events.start()
        await self._dispatcher.start()
        await self._calibrator.start()
        self._admission.open = self._admission.begun = True

    async def drain(self, grace: float) -> bool:
        """Refuse what is new and let what is in flight finish, for at most ``grace`` seconds.

        True if all of it finished.
        """
        self._admission.open = False
        return await self._in_flight.end(grace)

    async def stop(self) -> None:
        """Stop the devices. What is still waiting is refused."""
        self._admission.open = False
        self._stopped = True
        self._model_events.stop()
        self._calibrator.stop()
        await self._dispatcher.stop()
        if self._cache is not None:
            await self._cache.close()

    @property
    def accepting(self) -> bool:
        return self._admission.open  # to new requests

    @property
    def in_flight(self) -> int:
        return self._in_flight.count  # between arrival and answer

    def ready(self) -> bool:
        """Accepting and not leaving, something to serve, and a healthy device in each group of devices."""
        return not self.why_unready()

    def why_unready(self) -> str:
        """What is missing to be ready, in words for everybody; "" if nothing is."""
        if self.leaving:
            return "it is shutting down"
        if self.trouble:
            return self.trouble
        if not self.accepting:
            return "its models are being loaded" if not self._admission.begun else "it is draining"
        devices = self._dispatcher.devices.values()
        alive = {device.group for device in devices if device.healthy}
        if dead := [device.why_unhealthy for device in devices if device.group not in alive]:
            return dead[0]
        return "no model is loaded" if self.catalog.empty else ""

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
            for info in self.catalog.infos()
            if name in ("", info.name) and version in ("", info.version)
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

    def lost_lanes(self) -> dict[str, int]:
        """Threads of each device of this process that an execution has held for too long."""
        devices = self._dispatcher.devices.values()
        return {device.name: device.lost for device in devices if isinstance(device, EmbeddedDevice)}

    def placement_facts(self) -> dict[str, Mapping[str, int]]:
        """By the names of their metrics: hedges by outcome, devices that are ejected now, and how often."""
        ejection = self._dispatcher.scheduler.ejection
        return {
            "nonet_hedges": self._dispatcher.hedging.outcomes,
            "nonet_device_ejected": ejection.resting(self.clock.now()),
            "nonet_device_ejections": ejection.ejections,
        }

    def keeps_answers(self, info: ModelInfo) -> bool:
        """Whether the answers of a version are kept."""
        return info.cacheable and self._cache is not None and self._cache.keeps

    def devices_of(self, info: ModelInfo) -> list[str]:
        """Names of the devices that can run a version now."""
        devices, key = self._dispatcher.scheduler.devices.values(), (info.name, info.version)
        return [state.name for state in devices if state.can_run(key)]

    # -- the path -------------------------------------------------------------------------------

    def admit(
        self,
        *,
        task: str = "",
        model: str = "",
        version: str = "",
        deadline: float | None = None,
        priority: int = 1,
        caller: Caller = NOBODY,
    ) -> contextlib.AbstractContextManager[None]:
        """Let a request in before its body has arrived: use it as ``with plane.admit():`` at once;
        :meth:`drain` then waits until the block is left.

        Call :meth:`infer` inside with ``admitted=True``.

        Args:
            task: name of the task that is asked for; then ``model`` is what the caller calls the model, ""
                if only the body tells.
            model, version: name and version of the OIP model if there is no task.
            deadline, priority: of the call; ``caller``: whose it is.

        Raises as :meth:`Admission.check`; what is refused is recorded with all observers, but for a server
        that drains.
        """
        key = self.check(task, model, version, deadline, priority, caller)
        expected = self._dispatcher.scheduler.expected
        return Place(self._in_flight, key and expected.seat(key, priority, self.clock.now(), caller))

    def check(
        self, task: str, model: str, version: str, deadline: float | None, priority: int, caller: Caller
    ) -> QueueKey | None:
        """Raises and records what :meth:`admit` would; the version it is for, if the headers tell."""
        self._admission.check_open()
        try:
            return self._admission.check(task, model, version, deadline, priority, caller)
        except ServingError as error:
            now = self.clock.now()
            progress = RequestProgress(arrival=now, deadline=deadline)
            if (info := self._admission.refused) is not None:
                progress.model, progress.version = info.name, info.version
            progress.end(None, error.code, now)
            for observer in self._observers:
                observer.on_request(progress)
            raise

    async def infer(self, request: InferRequest, *, admitted: bool = False) -> InferResponse:
        """Answer ``request`` (of a model that works in steps, the final answer). Cancelling withdraws it.

        ``admitted``: it was let in by :meth:`admit`, so it is served even if the plane drains by now.
        Raises ServingError; every call is recorded exactly once with all observers.
        """
        if admitted:
            return await self._recorded(request, admitted)
        with self._in_flight:
            return await self._recorded(request, admitted)

    async def stream(
        self, request: InferRequest, *, admitted: bool = False
    ) -> AsyncGenerator[InferResponse, None]:
        """The partial answers to ``request`` in order (their ``final`` is False), then the final one.

        A slow reader gets the newest partial answers only, if all of them take much memory; one whose answer
        is in the cache, or comes of an execution that had begun, may get the final one alone. Closing the
        generator or cancelling its reader withdraws the work. Raises and records as :meth:`infer`.
        """
        partials = PartialAnswers(request.id)
        with self._in_flight:
            answering = self._recorded(request, admitted, partials)
            async with contextlib.aclosing(streamed(answering, partials)) as answers:
                async for response in answers:
                    yield response

    async def _recorded(
        self, request: InferRequest, admitted: bool, partials: PartialAnswers | None = None
    ) -> InferResponse:
        arrival = self.clock.now()
        progress = RequestProgress(arrival=arrival, deadline=request.deadline, partials=partials)
        response: InferResponse | None = None
        code = ""
        size = sum(tensor.nbytes for tensor in request.inputs)
        self._admission.held_bytes += size
        try:
            if self._stopped:
                raise Unavailable("the server has shut down", code="SHUTTING_DOWN")
            if not admitted:
                self._admission.check_open()
            self._admission.check_memory()
            response = await self._serve(request, progress)
            progress.stage = "done"
            if self.shadows:
                self.shadows.answered(request, response, progress)
            return response
        except ServingError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CLIENT_CLOSED"
            if self._execution.executes(progress):
                progress.stage = "executing"
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self._admission.held_bytes -= size
            progress.end(response, code, self.clock.now())
            for observer in self._observers:
                observer.on_request(progress)

    async def _serve(self, request: InferRequest, progress: RequestProgress) -> InferResponse:
        try:
            return await self._serve_version(request, progress)
        except VersionGone:
            if request.version:
                raise
        # The version was replaced where it runs; a caller that named none gets the new one.
        return await self._serve_version(request, progress)

    async def _serve_version(self, request: InferRequest, progress: RequestProgress) -> InferResponse:
        with self.catalog.lease(request.model, request.version) as lease:
            info, arrival = lease.info, progress.arrival
            progress.model, progress.version = info.name, info.version
            parameters, asked, priority = normalised(request, arrival)
            progress.deadline = asked
            request = validation.validate(request, info)
            progress.rows = rows = request.inputs[0].shape[0] if info.max_batch_size else 1
            deadline = arrival + self._limits.default_timeout if asked is None else asked
            deadline = min(deadline, arrival + self._limits.max_timeout)
            # Work that is long looks at the deadline on its way, so it must know the default one too.
            request = dataclasses.replace(
                request,
                version=info.version,
                parameters=parameters,
                deadline=deadline,
                priority=priority,
                state=None,
                cost=self._costs.of(request, info, rows),
            )
            left = deadline - self.clock.now()
            if left <= 0:
                raise DeadlineExceeded("the deadline had passed when the request arrived")
            limit = TimeLimit(left)
            try:
                with limit:
                    if self._composer.concerns(info):
                        request = await self._composer.complete(request, info)
                        request = validation.validate(request, info)
                    response = await self._execution.answer(request, lease, deadline, progress)
            except TimeoutError:
                if not limit.passed:
                    raise
                raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        if response.id == request.id and response.cache == progress.cache:
            return response
        return dataclasses.replace(response, id=request.id, cache=progress.cache)
