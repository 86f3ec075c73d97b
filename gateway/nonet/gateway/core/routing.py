"""From the model a caller names to the service that answers: a member of a family, by quality and time.

Algorithm: the candidates are the ready services of the task that match the name (``auto``: those of the first
preferred family that is there; a family's name: its members; a network's or a service's own name: that one).
Of several, the best by measured quality that can answer before the deadline is taken; if none can, the
fastest, and admission then says no with the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import NotFound, Unavailable
from nonet.runtime.servable import ModelInfo

AUTO = "auto"


class Router:
    """Chooses services for the task API.

    Args:
        catalog: what is ready.
        answered_at: predicted instant at which a one-row request for a version, submitted now with the
            given priority and deadline, would be answered; ``math.inf`` if nothing serves it.
        preferred_families: the families ``auto`` tries, in order, before the others by name.
    """

    def __init__(
        self,
        catalog: Catalog,
        answered_at: Callable[[ModelInfo, int, float], float],
        preferred_families: Sequence[str],
    ) -> None:
        self._catalog = catalog
        self._answered_at = answered_at
        self._preferred = tuple(preferred_families)

    def choose(self, task: str, model: str, *, deadline: float | None, priority: int = 1) -> ModelInfo:
        """The service to call for ``model``; see the module's text.

        Raises NotFound, naming what there is, for an unknown name; Unavailable for a model that is known but
        not ready (``MODEL_NOT_READY``), or if the task has no model at all (``NO_MODEL``).
        """
        services = self.services(task)
        if not services:
            raise Unavailable(
                f"no model for {task} is loaded; train or pull one, see 'nonet models list'",
                param="model",
                code="NO_MODEL",
                retry_after=5.0,
            )
        members = self.members(task, model or AUTO)
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
        if deadline is None or len(members) == 1:
            return members[0]
        ends = [(self._answered_at(info, priority, deadline), info) for info in members]
        return next((info for end, info in ends if end <= deadline), min(ends, key=lambda pair: pair[0])[1])

    def members(self, task: str, model: str) -> Sequence[ModelInfo]:
        """The newest ready services of a task that match a name, best first; () if none."""
        services = self.services(task)
        if not services:
            return ()
        members = self._matching(services, model)
        members.sort(key=lambda info: (-max(info.quality.get("top1", 0.0), 0.0), info.name))
        return members

    def services(self, task: str) -> list[ModelInfo]:
        """The newest ready services of a task."""
        newest: dict[str, ModelInfo] = {}
        for info in self._catalog.infos():  # ascending versions: the last one wins
            if info.task == task and info.network:
                newest[info.name] = info
        return list(newest.values())

    def _matching(self, services: list[ModelInfo], model: str) -> list[ModelInfo]:
        if model == AUTO:
            families = {info.family for info in services}
            order = [family for family in self._preferred if family in families]
            family = next(iter(order), None)
            if family is None:
                family = min(families, key=lambda name: (name == "", name))
            return [info for info in services if info.family == family]
        exact = [info for info in services if model in (info.network, info.name)]
        return exact or [info for info in services if info.family and info.family == model]
