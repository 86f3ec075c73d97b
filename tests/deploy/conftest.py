"""The server that the tests of deploy/ scrape and put something in front of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_server import RunningServer, running


@pytest.fixture(scope="session")
def quiet_server(small_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that nobody asks what would raise an alert, unlike ``server``, which others provoke."""
    with running(small_repository, tmp_path_factory.mktemp("quiet")) as started:
        yield started
