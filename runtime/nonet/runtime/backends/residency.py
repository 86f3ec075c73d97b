"""A budget for the memory of loaded networks: beyond it, those that have not run for longest are unloaded.

A :class:`ResidentNetwork` is a :class:`~nonet.runtime.backends.contract.LoadedNetwork` that may be out of
memory and loads itself before it runs. Guarantees of a :class:`MemoryBudget`:

- networks that run are never unloaded;
- at no time are more bytes held than the budget, unless every network held is running or being loaded;
- no run waits for another network's: where all that is held is in use, the budget is exceeded, and what is
  too much is unloaded as soon as it is idle.

What a network counts with is estimated by who loads it. What a run needs besides is not in the budget.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nonet.runtime.backends.contract import BackendError, LoadedNetwork
from nonet.runtime.errors import Unavailable
from nonet.runtime.tensors import Array

__all__ = ["MemoryBudget", "ResidentNetwork", "take_loading_seconds"]

_RETRY_SECONDS = 1.0

_spent = threading.local()


def take_loading_seconds() -> float:
    """Seconds that this thread has spent waiting for networks to be loaded since the last call.

    For who measures executions: how long a model takes is not how long it took to come back into memory.
    """
    seconds: float = getattr(_spent, "seconds", 0.0)
    _spent.seconds = 0.0
    return seconds


class MemoryBudget:
    """See the module's text. Thread-safe.

    ``limit``: bytes, at least 1; ``held``: bytes of the networks that are in memory or on their way;
    ``loads``, ``evictions``: how often a network was loaded, the first time included, and put out.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"the budget must be at least 1 byte, got {limit}")
        self.limit = limit
        self.held = 0
        self.loads = 0
        self.evictions = 0
        self._changed = threading.Condition()
        self._order: dict[ResidentNetwork, None] = {}  # what is held, least recently used first

    def load(self, size: int, load: Callable[[], LoadedNetwork]) -> ResidentNetwork:
        """Load a network and take charge of it; ``size``: bytes it counts with.

        Raises what ``load`` does, which is what :meth:`Backend.load` may.
        """
        resident = ResidentNetwork(self, size, load)
        try:
            with self.using(resident) as network:
                assert network is not None
                resident.facts = network.describe()
        except Unavailable as error:
            raise error.__cause__ or error from None
        return resident

    @contextlib.contextmanager
    def using(self, resident: ResidentNetwork, *, load: bool = True) -> Iterator[LoadedNetwork | None]:
        """The network in memory for the length of the block; without ``load`` None if it is not there.

        Raises Unavailable (``MODEL_NOT_IN_MEMORY``) if it cannot be loaded now.
        """
        network = self._enter(resident, load)
        try:
            yield network
        finally:
            if network is not None:
                self._leave(resident)

    def forget(self, resident: ResidentNetwork) -> LoadedNetwork | None:
        """It will not run again; returns what is to be unloaded, None if it is not in memory."""
        with self._changed:
            resident.closed = True
            return self._take(resident)

    def _enter(self, resident: ResidentNetwork, load: bool) -> LoadedNetwork | None:
        started = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: not resident.loading)
            if resident.closed:
                raise BackendError("the network was unloaded")
            if resident.network is not None:
                resident.users += 1
                self._order[resident] = self._order.pop(resident)  # now the most recently used
                _spend(started)
                return resident.network
            if not load:
                return None
            if started < resident.retry_at:
                raise _not_in_memory()
            resident.loading = True
            resident.users += 1
            self.held += resident.size
            self._order[resident] = None
            idle = self._too_much()
        _unload(idle)
        network = None
        try:
            network = resident.load()
        except (BackendError, MemoryError) as error:
            raise _not_in_memory() from error
        finally:
            with self._changed:
                resident.loading = False
                resident.network = network
                if network is None:
                    resident.users -= 1
                    resident.retry_at = time.monotonic() + _RETRY_SECONDS
                    self._take(resident)
                else:
                    self.loads += 1
                self._changed.notify_all()
            _spend(started)
        return network

    def _leave(self, resident: ResidentNetwork) -> None:
        with self._changed:
            resident.users -= 1
            idle = self._too_much()
        _unload(idle)

    def _too_much(self) -> list[LoadedNetwork]:
        """Take idle networks, the least recently used first, until the rest is within the budget."""
        taken = []
        for resident in list(self._order):
            if self.held <= self.limit:
                break
            if resident.users == 0 and (network := self._take(resident)) is not None:
                self.evictions += 1
                taken.append(network)
        return taken

    def _take(self, resident: ResidentNetwork) -> LoadedNetwork | None:
        network, resident.network = resident.network, None
        if resident in self._order:
            del self._order[resident]
            self.held -= resident.size
        return network


class ResidentNetwork:
    """A network that :class:`MemoryBudget` brings into memory and puts out of it; its ``load`` makes them.
    All but ``facts`` is the budget's."""

    def __init__(self, budget: MemoryBudget, size: int, load: Callable[[], LoadedNetwork]) -> None:
        self.network: LoadedNetwork | None = None
        self.size = size
        self.load = load
        self.users = 0
        self.loading = self.closed = False
        self.retry_at = 0.0
        self.facts: dict[str, Any] = {}
        self._budget = budget

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        with self._budget.using(self) as network:
            assert network is not None
            network.warm_up(inputs)

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As in the contract; raises Unavailable besides, if it cannot be brought into memory now."""
        with self._budget.using(self) as network:
            assert network is not None
            return network.infer(inputs, outputs)

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        with self._budget.using(self, load=False) as network:
            if network is not None:
                network.release_memory(inputs)

    def unload(self) -> None:
        network = self._budget.forget(self)
        if network is not None:
            network.unload()

    def describe(self) -> dict[str, Any]:
        return dict(self.facts)


def _unload(networks: Sequence[LoadedNetwork]) -> None:
    for network in networks:
        network.unload()


def _spend(started: float) -> None:
    _spent.seconds = getattr(_spent, "seconds", 0.0) + time.monotonic() - started


def _not_in_memory() -> Unavailable:
    return Unavailable(
        "the model was put out of memory for others and cannot be loaded back now",
        code="MODEL_NOT_IN_MEMORY",
        retry_after=_RETRY_SECONDS,
    )
