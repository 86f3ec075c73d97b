"""The Triton servers that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.triton_server import TritonServer, running_triton, write_sleeper


@pytest.fixture(scope="session")
def sleepers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of Triton's own models, which sleep: ``sleeper`` and ``other``."""
    root = tmp_path_factory.mktemp("sleepers") / "models"
    for name in ("sleeper", "other"):
        write_sleeper(root, name)
    return root


@pytest.fixture(scope="session")
def _twins(sleepers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TritonServer]]:
    folder = tmp_path_factory.mktemp("triton")
    with running_triton(sleepers, folder / "a") as first, running_triton(sleepers, folder / "b") as second:
        yield [first, second]


@pytest.fixture
def twins(_twins: list[TritonServer]) -> list[TritonServer]:
    """Two Triton servers with the same models; what a test has killed is there again for the next."""
    for server in _twins:
        if not server.process.is_running():
            server.start()
    for server in _twins:
        server.wait_ready()
    return _twins
