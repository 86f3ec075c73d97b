"""Old versions of buildings are removed when a newer one serves and their last request is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonet.gateway.core.version_pruning import VersionPruner
from nonet.runtime.scans import Scans
from nonet.services.floor_identification import derive
from nonet.services.floor_identification.building_names import TASK
from tests.support import toy_worker
from tests.support.managed_repository import ManagedRepository
from tests.support.running_server import eventually


@pytest.fixture
def house(tmp_path: Path) -> ManagedRepository:
    (tmp_path / "models").mkdir()
    return ManagedRepository(tmp_path / "models", tmp_path / "cache", derive=[derive])


def refit(house: ManagedRepository, building: str = "home", *, damaged: bool = False) -> None:
    """Publish a version and look at the repository."""
    scans = Scans.build([("a", {"m1": -50.0})])
    version = toy_worker.publish(house.root, building, scans, {}, 0, "job")
    if damaged:
        (house.root / f"floors_{building}" / version / "transmitters.txt").write_text("others\n")
    house.manager.refresh()


def versions(house: ManagedRepository, building: str = "home") -> list[str]:
    return sorted(path.name for path in (house.root / f"floors_{building}").iterdir() if path.is_dir())


def versions_become(house: ManagedRepository, *wanted: str) -> None:
    eventually(lambda: versions(house) == list(wanted), f"versions {wanted} are left")


@pytest.mark.parametrize(("keep", "left"), [(1, ["5"]), (2, ["4", "5"]), (9, ["1", "2", "3", "4", "5"])])
def test_the_newest_versions_stay(house: ManagedRepository, keep: int, left: list[str]) -> None:
    VersionPruner(house.catalog, house.root, keep, {TASK})
    for _ in range(5):
        refit(house)
    versions_become(house, *left)
    assert house.catalog.versions("identify.floors_home") == ["5"]


def test_a_version_that_a_request_holds_stays_until_the_request_is_done(house: ManagedRepository) -> None:
    VersionPruner(house.catalog, house.root, 1, {TASK})
    refit(house)
    with house.catalog.lease("identify.floors_home") as lease:
        for _ in range(3):
            refit(house)
        versions_become(house, "1", "4")
        assert lease.info.version == "1"
    versions_become(house, "4")


def test_a_refit_that_cannot_be_loaded_removes_nothing(house: ManagedRepository) -> None:
    VersionPruner(house.catalog, house.root, 1, {TASK})
    refit(house)
    refit(house)
    versions_become(house, "2")
    for _ in range(2):
        refit(house, damaged=True)
    assert house.catalog.versions("identify.floors_home") == ["2"]
    refit(house, "other")
    refit(house, "other")
    eventually(lambda: versions(house, "other") == ["2"], "another building is tidied")
    assert versions(house) == ["2", "3", "4"]
    refit(house)
    versions_become(house, "5")
