"""A service alone loads the networks of its own tasks, and those that are no task's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nonet.runtime.errors import Conflict
from nonet.runtime.repository.layout import MANIFEST_FILE
from tests.support import handmade_networks
from tests.support.managed_repository import ManagedRepository


@pytest.fixture
def managed(tmp_path: Path) -> ManagedRepository:
    root = tmp_path / "models"
    root.mkdir()
    return ManagedRepository(root, tmp_path / "cache", foreign_tasks={"singing", "dancing"})


def add(managed: ManagedRepository, name: str, **facts: Any) -> Path:
    version = handmade_networks.add_scaled(managed.root, name, 10, 1)
    tell(version, **facts)
    return version


def tell(version: Path, **facts: Any) -> None:
    manifest = version / MANIFEST_FILE
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | facts))


def loaded(managed: ManagedRepository) -> list[str]:
    return [info.name for info in managed.catalog.infos()]


def test_only_the_own_tasks_networks_and_bare_ones_are_loaded(managed: ManagedRepository) -> None:
    add(managed, "singer", task="singing")
    add(managed, "painter", task="painting")
    add(managed, "bare")
    managed.manager.load_all()
    assert loaded(managed) == ["bare", "painter"]
    assert [line.name for line in managed.catalog.index()] == ["bare", "painter"]
    assert managed.manager.failed == 0
    with pytest.raises(Conflict, match="another service") as refused:
        managed.manager.load("singer")
    assert refused.value.code == "MODEL_ELSEWHERE"


def test_a_version_that_changes_its_task_comes_and_goes(managed: ManagedRepository) -> None:
    version = add(managed, "artist", task="painting")
    managed.manager.load_all()
    assert loaded(managed) == ["artist"]
    tell(version, task="dancing")
    assert managed.did() == [("artist", "1", "unloaded")]
    tell(version, task="painting")
    assert managed.did() == [("artist", "1", "loaded")]


def test_a_manifest_that_cannot_be_read_is_still_explained(managed: ManagedRepository) -> None:
    version = add(managed, "singer", task="singing")
    (version / MANIFEST_FILE).write_text("{")
    managed.manager.load_all()
    entry = managed.entry("singer", "1")
    assert entry is not None
    assert "manifest.json" in entry.reason
