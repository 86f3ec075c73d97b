"""Fixtures shared by all tests: the handmade repository, running servers, the real data if it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import handmade_networks
from tests.support.running_server import RunningServer, assert_clean_log, running

# Hundreds of servers are started: none of them is to compile all of Nonet once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A busy machine must not fail a property; what a property costs is for the benchmarks to say.
# Sixty examples of each property, not a hundred: there are many properties and two processors.
hypothesis.settings.register_profile("nonet", deadline=None, max_examples=40)
hypothesis.settings.load_profile("nonet")


_FOLDERS_OF_SERVER_TESTS = {"cli", "clients", "docs", "faults"}
_FIXTURES_WITH_PROCESSES = {"own_redis", "quiet_server", "redis_server", "server", "start_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes of their own, so that ``make check`` can leave them out."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder in _FOLDERS_OF_SERVER_TESTS or fixtures & _FIXTURES_WITH_PROCESSES:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def fault_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of handmade networks; read-only by agreement (copy it to change it)."""
    return handmade_networks.build_repository(tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks that start quickly; read-only by agreement."""
    return handmade_networks.build_small_repository(tmp_path_factory.mktemp("small_repository") / "models")


@pytest.fixture(scope="session")
def server(fault_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One gateway for all tests that leave nothing behind, with two lanes and default limits otherwise."""
    settings = {"scheduler": {"lanes": 2}, "repository": {"poll_seconds": 0.0}}
    with running(fault_repository, tmp_path_factory.mktemp("server"), settings) as started:
        yield started


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers of one's own: ``start_server(repository, settings, **options)``.

    They are stopped at the end of the test and must not have logged a traceback.
    """
    started: list[RunningServer] = []

    def start(repository: Path, settings: Any = None, **options: Any) -> RunningServer:
        one = RunningServer(repository, tmp_path / f"server{len(started)}", settings, **options)
        started.append(one)
        return one

    yield start
    for one in started:
        try:
            one.stop()
        finally:
            one.kill()
    for one in started:
        assert_clean_log(one.log)


@pytest.fixture
def own_repository(tmp_path: Path) -> Path:
    """An empty repository of the test's own."""
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: NONET_DATA, or ``../shared/data`` beside the checkout; skips without."""
    root = Path(os.environ.get("NONET_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no real data here: set NONET_DATA to the folder of the data sets")
    return root
