"""A repository of handmade networks with its manager and catalog, for the tests of the manager."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from nonet.runtime.backends import BackendOptions
from nonet.runtime.catalog import Catalog, IndexEntry
from nonet.runtime.clock import ManualClock
from nonet.runtime.profile import ProfileStore
from nonet.runtime.repository import Derivation, RepositoryManager
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.tensors import Tensor


class ManagedRepository:
    """A repository, a catalog and the manager between them."""

    def __init__(
        self,
        root: Path,
        cache: Path,
        *,
        strict: bool = False,
        derive: Sequence[Derivation] = (),
        foreign_tasks: Collection[str] = (),
    ):
        self.root = root
        self.catalog = Catalog()
        self.clock = ManualClock()
        self.manager = RepositoryManager(
            root,
            self.catalog,
            options=BackendOptions(concurrency=2),
            derivations=derive,
            strict=strict,
            foreign_tasks=foreign_tasks,
            store=ProfileStore(cache),
            clock=self.clock,
        )

    def ask(self, name: str = "scaled", version: str = "") -> float:
        """What the model makes of 1: its factor."""
        with self.catalog.lease(name, version) as lease:
            tensor = Tensor.of("x", np.ones((1, 1), np.float32))
            (outcome,) = lease.servable.execute([InferRequest(model=name, inputs=(tensor,))])
        assert isinstance(outcome, InferResponse), outcome
        return float(outcome.outputs[0].data[0, 0])

    def entry(self, name: str, version: str) -> IndexEntry | None:
        return next(
            (line for line in self.catalog.index() if (line.name, line.version) == (name, version)), None
        )

    def did(self) -> list[tuple[str, str, str]]:
        """Refresh; what was done, without reasons."""
        return [(change.model, change.version, change.kind.value) for change in self.manager.refresh()]


def policy(managed: ManagedRepository, text: str, name: str = "scaled") -> None:
    path = managed.root / name / "config.pbtxt"
    path.write_text(path.read_text().replace("version_policy: { all { } }", text))
