"""From the model a caller names to the service that answers: a member of a family, by quality and time.

Algorithm: the candidates are the ready services of the task that match the name (``auto``: those of the first
preferred family that is there; a family's name: its members; a network's or a service's own name: that one).
Of several, the best by measured quality that can answer before the deadline is taken; if none can, the
fastest, and admission then says no with the reason. Where what waits takes up half of the time to the
deadline, the fastest is taken, too: else the better ones fill the queues up to the deadline, and who comes
next is refused by all.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import Conflict, NotFound, ServingError, Unavailable
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task_index import TaskIndex

AUTO = "auto"
RANK = "top1"
"""The quality figure that orders a family where a task names no other; the larger the better."""

Absence = Callable[[str], ServingError | None]
"""Given a task that nothing answers: what is missing, or None if that is a model and nothing else."""


def no_more_than_a_model(task: str) -> None:
    """What is missing where every service is part of the process."""


class Router:
    """Chooses services for the task API.

    Args:
        catalog: what is ready.
        answered_at: predicted instant at which a one-row request for a version, submitted now with the
            given priority and deadline, would be answered; ``math.inf`` if nothing serves it.
        preferred_families: the families ``auto`` tries, in order, before the others by name.
        ranks: by task, the quality figure that orders a family; :data:`RANK` for a task that is not in it.
        absence: says of a task without a model what is missing, if it is more than the model.
        crowded: whether what waits before a request with the given priority and deadline takes up half of its
            time.
    """

    def __init__(
        self,
        catalog: Catalog,
        answered_at: Callable[[ModelInfo, int, float], float],
        preferred_families: Sequence[str],
        ranks: Mapping[str, str] | None = None,
        absence: Absence = no_more_than_a_model,
        crowded: Callable[[ModelInfo, int, float], bool] = lambda info, priority, deadline: False,
    ) -> None:
        self._catalog = catalog
        self._answered_at = answered_at
        self._preferred = tuple(preferred_families)
        self._ranks = dict(ranks or {})
        self._absence = absence
        self._crowded = crowded

    def choose(
        self,
        task: str,
        model: str,
        *,
        deadline: float | None,
        priority: int = 1,
        answered_at: Callable[[ModelInfo, int, float], float | None] | None = None,
        floor: float | None = None,
    ) -> ModelInfo:
        """The service to call for ``model``; see the module's text.

        ``answered_at`` predicts for the very request, where more is known of it than that it is one; None for
        a service that does not take it, which is passed over if another does. ``floor``: the least of the
        task's quality figure that will do; what has no such figure is below every floor.

        Raises Conflict (``ACCURACY_FLOOR``) if nothing is as good as ``floor``; NotFound, naming what there
        is, for an unknown name; Unavailable for a model that is known but not ready (``MODEL_NOT_READY``), or
        if the task has no model at all (``NO_MODEL``, or what the router was given as the reason).
        """
        figure = self.rank(task)
        members, services = self._catalog.find(task, lambda index: self._look(index, model or AUTO, figure))
        if not services:
            raise self._absence(task) or Unavailable(
                f"no model for {task} is loaded; train or pull one, see 'nonet models list'",
                param="model",
                code="NO_MODEL",
                retry_after=5.0,
            )
        if not members:
            with contextlib.suppress(NotFound):
                self._catalog.info(model)  # of a network that is there but not ready this says so
            families = sorted({info.family for info in services if info.family})
            names = sorted(info.network for info in services)
            known = ", ".join([AUTO, *families, *names])
            raise NotFound(
                f"unknown model '{model[:80]}' for {task}; known: {known}",
                param="model",
                code="MODEL_NOT_FOUND",
            )
        if floor is not None:
            members = self.above(members, task, floor)
        if deadline is None or len(members) == 1:
            return members[0]
        ends: list[float] = []
        for info in members:
            end = (answered_at or self._answered_at)(info, priority, deadline)
            ends.append(math.inf if end is None else end)
            if end is not None and end <= deadline and not self._crowded(info, priority, deadline):
                return info
        return members[ends.index(min(ends))]

    def above(self, members: Sequence[ModelInfo], task: str, floor: float) -> Sequence[ModelInfo]:
        """The members that are as good as ``floor``, in their order. Raises Conflict (``ACCURACY_FLOOR``) if
        none is."""
        figure = self.rank(task)
        good = [info for info in members if info.quality.get(figure, -math.inf) >= floor]
        if good:
            return good
        best = max((info.quality[figure] for info in members if figure in info.quality), default=None)
        there = f"the best there is has {best:g}" if best is not None else "nothing there has been measured"
        raise Conflict(
            f"no model has a {figure} of at least {floor:g} (X-Accuracy-Floor); {there}",
            param="X-Accuracy-Floor",
            code="ACCURACY_FLOOR",
        )

    def rank(self, task: str) -> str:
        """The quality figure that orders the families of a task."""
        return self._ranks.get(task, RANK)

    def members(self, task: str, model: str) -> Sequence[ModelInfo]:
        """The newest ready services of a task that match a name (``auto``, a family's, a network's or a
        service's own), best first; () if none."""
        figure = self.rank(task)
        return self._catalog.find(task, lambda index: self._look(index, model or AUTO, figure))[0]

    def services(self, task: str) -> Sequence[ModelInfo]:
        """The newest ready services of a task, by name."""
        return self._catalog.services(task)

    def _look(
        self, index: TaskIndex, model: str, figure: str
    ) -> tuple[Sequence[ModelInfo], Sequence[ModelInfo]]:
        """The services that match, and all there are."""
        if model == AUTO:
            family = next((name for name in self._preferred if index.family(name, figure)), None)
            return index.family(index.first_family() if family is None else family, figure), index.services
        return index.named(model, figure) or index.family(model, figure), index.services
