"""Chooses the service that answers a task's request, by what that request costs and when it is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from nonet.gateway.core.costs import Costs
from nonet.gateway.core.dispatcher import Dispatcher
from nonet.gateway.core.executions import executions
from nonet.gateway.core.routing import Absence, Router
from nonet.gateway.scheduler import DeviceState
from nonet.runtime.catalog import Catalog
from nonet.runtime.clock import Clock
from nonet.runtime.errors import ServingError
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo

_CROWDED = 0.5
"""Of the time to a deadline, what may be spent waiting for a member of a family that is not its fastest."""


class Chooser:
    """See the module's text.

    Attributes:
        router: knows the families.

    Args:
        catalog: what is ready.
        dispatcher: predicts when a request would be answered.
        costs: tells what a request costs.
        clock: of the deadlines.
        default_timeout: seconds for a caller who gives none.
        preferred_families, ranks, absence: as of :class:`Router`.
    """

    def __init__(
        self,
        catalog: Catalog,
        dispatcher: Dispatcher,
        costs: Costs,
        clock: Clock,
        default_timeout: float,
        preferred_families: Sequence[str],
        ranks: dict[str, str],
        absence: Absence,
    ) -> None:
        self._dispatcher = dispatcher
        self._costs = costs
        self._clock = clock
        self._default_timeout = default_timeout
        self.router = Router(
            catalog, self._least_answered_at, preferred_families, ranks, absence, self._crowded
        )

    def choose(
        self, task: str, model: str, request: InferRequest, *, floor: float | None = None
    ) -> ModelInfo:
        """The service for what a caller of a task calls ``model``; what is asked of it is the same for each.

        Where the task tells what requests cost, one that takes the request and can do so much in time is
        preferred, in the default time if the caller has given none. ``floor``: the least quality that will
        do. Raises as :meth:`Router.choose`.
        """
        priority, deadline = request.priority, request.deadline
        if task not in self._costs:
            return self.router.choose(task, model, deadline=deadline, priority=priority, floor=floor)
        if deadline is None:
            deadline = self._clock.now() + self._default_timeout

        def answered_at(info: ModelInfo, priority: int, deadline: float) -> float | None:
            return self.answered_at(info, request, deadline)

        return self.router.choose(
            task, model, deadline=deadline, priority=priority, answered_at=answered_at, floor=floor
        )

    def answered_at(
        self, info: ModelInfo, request: InferRequest, deadline: float, on: DeviceState | None = None
    ) -> float | None:
        """Predicted instant of the answer to a request, of one device if it is given; None if the service
        does not take the request."""
        rows = _rows(request)
        try:
            cost = self._costs.of(request, info, rows)
        except ServingError:
            return None
        each, left = executions(info, rows, cost, self._dispatcher.in_steps)
        return self._dispatcher.scheduler.estimate(
            (info.name, info.version), each, request.priority, deadline, self._clock.now(), left=left, on=on
        )

    def cost_of(self, info: ModelInfo, request: InferRequest) -> float:
        """Work of a request that the service takes, in rows of its sample request."""
        return self._costs.of(request, info, _rows(request))

    def _crowded(self, info: ModelInfo, priority: int, deadline: float) -> bool:
        key, now = (info.name, info.version), self._clock.now()
        wait = self._dispatcher.scheduler.wait(key, priority, deadline, now)
        return wait > _CROWDED * (deadline - now)

    def _least_answered_at(self, info: ModelInfo, priority: int, deadline: float) -> float:
        return self._dispatcher.scheduler.estimate(
            (info.name, info.version), 1.0, priority, deadline, self._clock.now()
        )


def _rows(request: InferRequest) -> int:
    return request.inputs[0].shape[0] if request.inputs and request.inputs[0].shape else 1
