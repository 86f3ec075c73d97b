"""The development service over the stand-in network, loaded from a real repository."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nonet.runtime.backends.contract import BackendOptions
from nonet.runtime.catalog import Catalog
from nonet.runtime.errors import ServingError
from nonet.runtime.repository import RepositoryManager
from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import Servable
from nonet.runtime.tensors import Tensor
from nonet.services import raw_image
from tests.support import handmade_captures


@dataclasses.dataclass
class Lab:
    """Calls a service as the core does."""

    service: Servable

    def request(self, *files: bytes, deadline: float | None = None, **parameters: Any) -> InferRequest:
        return InferRequest(
            model=self.service.info.name,
            inputs=(Tensor.of_bytes("raw", list(files)),),
            parameters=parameters,
            deadline=deadline,
        )

    def run(self, *files: bytes, **parameters: Any) -> InferResponse:
        (outcome,) = self.service.execute([self.request(*files, **parameters)])
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def picture(self, file: bytes, **parameters: Any) -> np.ndarray:
        """The pixels of the answer."""
        return handmade_captures.decoded(self.run(file, **parameters).output("picture").data[0])

    def details(self, file: bytes, **parameters: Any) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run(file, **parameters).output("details").data[0])
        return facts


@pytest.fixture(scope="module")
def restorers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Stand-ins with small and large tiles, and one that answers NaN for bright captures."""
    root = tmp_path_factory.mktemp("restorers")
    handmade_captures.add_restorer(root, "small")
    handmade_captures.add_restorer(root, "large", 192)
    handmade_captures.add_restorer(root, "brittle", brittle=True)
    catalog = Catalog()
    manager = RepositoryManager(
        Path(root), catalog, options=BackendOptions(concurrency=1), derivations=[raw_image.derive]
    )
    manager.load_all()
    yield catalog
    for name in ("small", "large", "brittle"):
        manager.unload(name)


@pytest.fixture
def lab(restorers: Catalog) -> Iterator[Lab]:
    with restorers.lease("develop.small") as lease:
        yield Lab(lease.servable)


@pytest.fixture
def large_tiles(restorers: Catalog) -> Iterator[Lab]:
    with restorers.lease("develop.large") as lease:
        yield Lab(lease.servable)


@pytest.fixture
def brittle(restorers: Catalog) -> Iterator[Lab]:
    with restorers.lease("develop.brittle") as lease:
        yield Lab(lease.servable)
