"""From the model a caller names to the service that answers: a member of a family, by quality and time.

Algorithm: the candidates are the ready services of the task that match the name (``auto``: those of the first
preferred family that is there; a family's name: its members; a network's or a service's own name: that one).
Of several, the best by measured quality that can answer before the deadline is taken; if none can, the
fastest, and admission then says no with the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

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
        ranks: by task, the quality figure that orders a family; ``top1`` for a task that is not named.
    """

    def __init__(
        self,
        catalog: Catalog,
        answered_at: Callable[[ModelInfo, int, float], float],
        preferred_families: Sequence[str],
        ranks: Mapping[str, str] | None = None,
    ) -> None:
        self._catalog = catalog
        self._answered_at = answered_at
        self._preferred = tuple(preferred_families)
        self._ranks = dict(ranks or {})
        self._indexes: dict[str, _TaskIndex] = {}

    def choose(self, task: str, model: str, *, deadline: float | None, priority: int = 1) -> ModelInfo:
        """The service to call for ``model``; see the module's text.

        Raises NotFound, naming what there is, for an unknown name; Unavailable for a model that is known but
        not ready (``MODEL_NOT_READY``), or if the task has no model at all (``NO_MODEL``).
        """
        index = self._index(task)
        if not index.services:
            raise Unavailable(
                f"no model for {task} is loaded; train or pull one, see 'nonet models list'",
                param="model",
                code="NO_MODEL",
                retry_after=5.0,
            )
        members = index.named(model or AUTO)
        if not members:
            with contextlib.suppress(NotFound):
                self._catalog.info(model)  # of a network that is there but not ready this says so
            families = sorted({info.family for info in index.services if info.family})
            names = sorted(info.network for info in index.services)
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
        return self._index(task).named(model)

    def services(self, task: str) -> Sequence[ModelInfo]:
        """The newest ready services of a task, by name."""
        return self._index(task).services

    def _index(self, task: str) -> _TaskIndex:
        """What can be named in a task, made anew when something of the task came or went."""
        changes = self._catalog.changes(task)  # asked first: what changes meanwhile is read the next time
        index = self._indexes.get(task)
        if index is None or index.changes != changes:
            services = self._catalog.services(task)
            index = _TaskIndex(changes, services, self._ranks.get(task, "top1"), self._preferred)
            self._indexes[task] = index
        return index


class _TaskIndex:
    """The services of one task by every name that a caller may give them.

    Args:
        changes: of the catalog when they were read.
        services: the newest of each, by name.
        rank: the quality figure that orders them.
        preferred: families that ``auto`` takes before the others.
    """

    def __init__(
        self, changes: int, services: Sequence[ModelInfo], rank: str, preferred: Sequence[str]
    ) -> None:
        self.changes = changes
        self.services = tuple(services)
        families: dict[str, list[ModelInfo]] = {}
        names: dict[str, list[ModelInfo]] = {}
        for info in sorted(services, key=lambda info: (-max(info.quality.get(rank, 0.0), 0.0), info.name)):
            families.setdefault(info.family, []).append(info)
            for name in {info.network, info.name}:
                names.setdefault(name, []).append(info)
        automatic: list[ModelInfo] = []
        if families:
            family = next((each for each in preferred if each in families), None)
            if family is None:
                family = min(families, key=lambda name: (name == "", name))
            automatic = families[family]
        families.pop("", None)
        # A model's own name goes before a family's.
        self._named = {**families, **names, AUTO: automatic}

    def named(self, model: str) -> Sequence[ModelInfo]:
        """Those that a name means, best first; () if none."""
        return self._named.get(model, ())
